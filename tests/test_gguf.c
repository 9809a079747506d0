// GGUF files: headers read and refused.
#include "loader/config.h"
#include "loader/gguf.h"
#include "loader/tokenizer.h"
#include "runtime/base/log.h"
#include "tests/gguf_file.h"
#include "tests/util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

// ---- a small good file

static const int64_t matrix[] = {2, 64}, vector[] = {3};

static void small_file(gguf_file *f) {
    static const char bytes[512];
    const kt_str words[] = {KT_STR("ab"), KT_STR(""), KT_STR("c d")};
    const int32_t numbers[] = {-1, 2, 3};
    const float halves[] = {0.5F, 0.5F};
    gguf_init(f);
    gguf_key_text(f, "general.architecture", KT_STR("test"));
    gguf_key_u32(f, "test.count", 7);
    gguf_key_f32(f, "test.real", 0.25F);
    gguf_key_bool(f, "test.truth", true);
    gguf_key_texts(f, "test.words", words, 3);
    gguf_key_i32s(f, "test.numbers", numbers, 3);
    gguf_key_f32s(f, "test.halves", halves, 2);
    gguf_tensor(f, "a.weight", GGUF_F16, matrix, 2, bytes, 256);
    gguf_tensor(f, "b.weight", GGUF_Q8_0, matrix, 2, bytes, 136);
    gguf_tensor(f, "c", GGUF_F32, vector, 1, bytes, 12);
}

typedef struct parsed {
    kt_arena arena;
    kt_buf bytes;
    kt_gguf_header out;
    kt_err err;
    kt_status status;
} parsed;

static void parse_bytes(parsed *p, size_t there) {
    kt_str bytes = {p->bytes.at, there};
    p->status = kt_gguf_parse(&p->arena, bytes, (int64_t)p->bytes.n, "t.gguf", &p->out, &p->err);
}

static void parse(parsed *p, gguf_file *f) {
    *p = (parsed){.bytes = gguf_bytes(f)};
    gguf_deinit(f);
    parse_bytes(p, p->bytes.n);
}

static void forget(parsed *p) {
    kt_buf_deinit(&p->bytes);
    kt_arena_deinit(&p->arena);
}

static void a_header_is_read(void **state) {
    (void)state;
    gguf_file f;
    parsed p;
    small_file(&f);
    parse(&p, &f);
    if (p.status != KT_OK) fail_msg("%s", p.err.text);
    kt_value number;
    kt_str text;
    assert_true(kt_gguf_text(kt_gguf_find(&p.out.gguf, KT_STR("general.architecture")), &text));
    assert_true(kt_str_is(text, "test"));
    assert_true(kt_gguf_number(kt_gguf_find(&p.out.gguf, KT_STR("test.count")), &number));
    assert_int_equal(number.i, 7);
    assert_true(kt_gguf_number(kt_gguf_find(&p.out.gguf, KT_STR("test.real")), &number));
    assert_true(number.is_real && number.r == 0.25);
    assert_true(kt_gguf_number(kt_gguf_find(&p.out.gguf, KT_STR("test.truth")), &number));
    assert_int_equal(number.i, 1);
    assert_null(kt_gguf_find(&p.out.gguf, KT_STR("test.none")));
    kt_gguf_walk walk = kt_gguf_items(kt_gguf_find(&p.out.gguf, KT_STR("test.words")));
    kt_gguf_value item;
    const char *const words[] = {"ab", "", "c d"};
    for (int i = 0; i < 3; i++) {
        assert_true(kt_gguf_next(&walk, &item) && kt_gguf_text(&item, &text));
        assert_true(kt_str_is(text, words[i]));
    }
    assert_false(kt_gguf_next(&walk, &item));
    walk = kt_gguf_items(kt_gguf_find(&p.out.gguf, KT_STR("test.numbers")));
    assert_true(kt_gguf_next(&walk, &item) && kt_gguf_number(&item, &number));
    assert_int_equal(number.i, -1);
    forget(&p);
}

static void tensors_are_described(void **state) {
    (void)state;
    gguf_file f;
    parsed p;
    small_file(&f);
    parse(&p, &f);
    assert_int_equal(p.out.n, 3);
    const kt_stored *a = &p.out.stored[0], *b = &p.out.stored[1], *c = &p.out.stored[2];
    assert_true(kt_str_is(a->name, "a.weight") && kt_str_is(a->type, "F16"));
    assert_true(a->rank == 2 && a->shape[0] == 2 && a->shape[1] == 64);
    assert_true(a->dtype == KT_DTYPE_F16 && a->ggml_type == 1 && a->bytes == 256);
    assert_true(kt_str_is(b->type, "Q8_0") && b->dtype == KT_DTYPE_U8 && b->ggml_type == 8);
    assert_true(b->rank == 3 && b->shape[0] == 2 && b->shape[1] == 2 && b->shape[2] == 34);
    assert_int_equal(b->offset - a->offset, 256);
    assert_int_equal(c->offset - b->offset, 160); // 136 and what fills up to 32
    assert_int_equal(c->offset + 12, (int64_t)p.bytes.n);
    assert_int_equal(a->offset % 32, 0);
    forget(&p);
}

// A file that another program wrote: tests/reference/make_gguf.py.
static void a_foreign_file_is_read(void **state) {
    (void)state;
    kt_arena arena = {0};
    kt_checkpoint c;
    kt_err err;
    kt_str text;
    kt_value number;
    if (kt_checkpoint_open(&arena, "tests/data/gguf", KT_STR("*.gguf"), &c, &err) != KT_OK)
        fail_msg("%s", err.text);
    const kt_gguf *gguf = c.files[0].gguf;
    const kt_config *config = kt_config_from_gguf(&arena, &gguf, 1);
    assert_true(kt_config_text(config, KT_STR("general.architecture"), &text));
    assert_true(kt_str_is(text, "llama"));
    assert_true(kt_config_number(config, KT_STR("$arch.embedding_length"), &number));
    assert_int_equal(number.i, 256);
    assert_true(kt_config_number(config, KT_STR("$arch.rope.freq_base"), &number));
    assert_true(number.is_real && number.r == 10000);
    assert_true(kt_config_number(config, KT_STR("tokenizer.ggml.tokens.length"), &number));
    assert_int_equal(number.i, 11);
    assert_true(kt_config_number(config, KT_STR("test.reals"), &number) && number.r == 0.5);
    assert_true(kt_config_no_number(config, KT_STR("tokenizer.ggml.token_type")));
    const kt_stored *one = kt_checkpoint_find(&c, KT_STR("one"));
    const kt_stored *two = kt_checkpoint_find(&c, KT_STR("two"));
    const kt_stored *q8 = kt_checkpoint_find(&c, KT_STR("q8"));
    const kt_stored *q4 = kt_checkpoint_find(&c, KT_STR("q4"));
    KT_ASSERT(one && two && q8 && q4);
    assert_int_equal(c.n_stored, 4);
    assert_true(one->rank == 2 && one->shape[0] == 2 && one->shape[1] == 3);
    assert_true(two->rank == 3 && two->shape[0] == 4 && two->shape[2] == 5 && two->bytes == 80);
    assert_true(q8->shape[0] == 3 && q8->shape[1] == 2 && q8->shape[2] == 34);
    assert_true(q4->ggml_type == 12 && q4->shape[1] == 1 && q4->shape[2] == 144);
    float first; // numpy.random.default_rng(1).standard_normal()
    assert_int_equal(kt_checkpoint_read(&c, one, 0, &first, sizeof first, &err), KT_OK);
    assert_true(first > 0.3455F && first < 0.3456F);
    kt_tokenizer *tokenizer = NULL;
    kt_ids ids = {0};
    assert_int_equal(kt_tokenizer_open(c.files[0].path, &tokenizer, &err), KT_OK);
    assert_int_equal(
        kt_tokenizer_encode(tokenizer, &arena, KT_STR("ab ab12<x>"), true, &ids, &err), KT_OK);
    const int32_t wanted[] = {6, 7, 4, 5, 8};
    assert_true(ids.n == 5 && memcmp(ids.at, wanted, sizeof wanted) == 0);
    kt_tokenizer_close(tokenizer);
    kt_checkpoint_close(&c);
    kt_arena_deinit(&arena);
}

// Reading only the first bytes of a header says that there is more, wherever it is cut.
static void a_part_of_a_header_asks_for_more(void **state) {
    (void)state;
    gguf_file f;
    parsed p;
    small_file(&f);
    size_t data = f.data.n;
    parse(&p, &f);
    size_t header = p.bytes.n - data - 31;
    for (size_t n = 0; n < header; n += 3) {
        parse_bytes(&p, n);
        if (p.status == KT_OK || !p.out.more)
            fail_msg("%zu of %zu bytes: %s", n, header, p.err.text);
    }
    forget(&p);
}

// ---- damage

typedef void damage_file(gguf_file *f);
typedef void damage_bytes(kt_buf *b);

static void set(kt_buf *b, size_t at, uint64_t value, int bytes) {
    assert_true(at + (size_t)bytes <= b->n);
    for (int i = 0; i < bytes; i++) b->at[at + (size_t)i] = (char)(value >> (8 * i));
}

// Where a text stands in the file, behind its own length.
static size_t find(const kt_buf *b, const char *text) {
    ptrdiff_t at = kt_str_find_text((kt_str){b->at, b->n}, text);
    assert_true(at > 0);
    return (size_t)at;
}

static void empty(kt_buf *b) {
    b->n = 0;
}
static void other_magic(kt_buf *b) {
    b->at[0] = 'g';
}
static void version_1(kt_buf *b) {
    set(b, 4, 1, 4);
}
static void version_9(kt_buf *b) {
    set(b, 4, 9, 4);
}
static void big_endian(kt_buf *b) {
    set(b, 4, 3U << 24, 4);
}
static void many_tensors(kt_buf *b) {
    set(b, 8, 1ULL << 40, 8);
}
static void many_keys(kt_buf *b) {
    set(b, 16, UINT64_MAX, 8);
}
static void more_keys(kt_buf *b) {
    set(b, 16, 8, 8);
}
static void fewer_keys(kt_buf *b) {
    set(b, 16, 6, 8);
}
static void key_without_name(kt_buf *b) {
    set(b, 24, 0, 8);
}
static void key_of_2_pow_60(kt_buf *b) {
    set(b, 24, 1ULL << 60, 8);
}
static void key_with_zero(kt_buf *b) {
    b->at[find(b, "general")] = '\0';
}
static void kind_99(kt_buf *b) {
    set(b, find(b, "test.count") + 10, 99, 4);
}
static void truth_2(kt_buf *b) {
    set(b, find(b, "test.truth") + 14, 2, 1);
}
static void text_too_long(kt_buf *b) {
    set(b, find(b, "general.architecture") + 24, 1U << 30, 8);
}
static void list_kind_99(kt_buf *b) {
    set(b, find(b, "test.words") + 14, 99, 4);
}
static void list_too_long(kt_buf *b) {
    set(b, find(b, "test.numbers") + 20, 1ULL << 33, 8);
}
static void list_of_2_pow_63(kt_buf *b) {
    set(b, find(b, "test.numbers") + 20, 1ULL << 63, 8);
}
static void axes_0(kt_buf *b) {
    set(b, find(b, "a.weight") + 8, 0, 4);
}
static void axes_9(kt_buf *b) {
    set(b, find(b, "a.weight") + 8, 9, 4);
}
static void axis_0(kt_buf *b) {
    set(b, find(b, "a.weight") + 12, 0, 8);
}
static void axis_negative(kt_buf *b) {
    set(b, find(b, "a.weight") + 12, UINT64_MAX, 8);
}
static void axis_huge(kt_buf *b) {
    set(b, find(b, "a.weight") + 12, 1ULL << 62, 8);
}
static void axis_larger(kt_buf *b) {
    set(b, find(b, "a.weight") + 20, 40, 8);
}
static void axis_no_blocks(kt_buf *b) {
    set(b, find(b, "b.weight") + 12, 63, 8);
}
static void type_5(kt_buf *b) {
    set(b, find(b, "a.weight") + 28, 5, 4);
}
static void type_huge(kt_buf *b) {
    set(b, find(b, "a.weight") + 28, 0x80000001U, 4);
}
static void offset_odd(kt_buf *b) {
    set(b, find(b, "b.weight") + 32, 264, 8);
}
static void offset_huge(kt_buf *b) {
    set(b, find(b, "b.weight") + 32, 1ULL << 63, 8);
}
static void offset_same(kt_buf *b) {
    set(b, find(b, "b.weight") + 32, 224, 8);
}
static void offset_hole(kt_buf *b) {
    set(b, find(b, "a.weight") + 32, 32, 8);
}
static void cut_in_data(kt_buf *b) {
    b->n -= 1;
}
static void cut_in_table(kt_buf *b) {
    b->n = find(b, "b.weight") + 20;
}
static void cut_in_keys(kt_buf *b) {
    b->n = find(b, "test.words") + 25;
}
static void cut_in_head(kt_buf *b) {
    b->n = 10;
}

static void key_twice(gguf_file *f) {
    gguf_key_u32(f, "test.count", 8);
}
static void key_long(gguf_file *f) {
    char name[1100];
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    gguf_key_u32(f, name, 8);
}
static void tensor_twice(gguf_file *f) {
    gguf_tensor(f, "c", GGUF_F32, vector, 1, "twelve bytes", 12);
}
static void tensor_without_name(gguf_file *f) {
    gguf_tensor(f, "", GGUF_F32, vector, 1, "twelve bytes", 12);
}
static void alignment_3(gguf_file *f) {
    gguf_key_u32(f, "general.alignment", 3);
}
static void alignment_0(gguf_file *f) {
    gguf_key_u32(f, "general.alignment", 0);
}
static void alignment_text(gguf_file *f) {
    gguf_key_text(f, "general.alignment", KT_STR("32"));
}
static void alignment_64(gguf_file *f) {
    static const char zeros[1024];
    const int64_t shape[] = {256};
    gguf_tensor(f, "d", GGUF_F32, shape, 1, zeros, sizeof zeros);
    gguf_key_u32(f, "general.alignment", 64);
}
static void part_of_many(gguf_file *f) {
    gguf_key_u32(f, "split.count", 3);
}
static void nested_lists(gguf_file *f) {
    kt_buf b = {0};
    for (int i = 0; i < 6; i++) kt_buf_add(&b, "\x09\0\0\0\x01\0\0\0\0\0\0\0", 12);
    gguf_key_raw(f, "test.nested", 9, b.at, b.n);
    kt_buf_deinit(&b);
}

static const struct {
    const char *name;
    damage_file *file;
    damage_bytes *bytes;
    const char *says; // after "t.gguf: "
} damages[] = {
    {"empty", NULL, empty,
        "the mark of the format at byte 0 takes 4 bytes, but the file ends at 0"},
    {"other magic", NULL, other_magic, "the file does not begin with 'GGUF'"},
    {"version 1", NULL, version_1, "version 1 of GGUF is not read"},
    {"version 9", NULL, version_9, "version 9 of GGUF is not known"},
    {"big-endian", NULL, big_endian, "the file is big-endian"},
    {"number of tensors", NULL, many_tensors, "the number of tensors is 1099511627776, which"},
    {"number of keys", NULL, many_keys, "the number of keys is 18446744073709551615, which"},
    {"one key more", NULL, more_keys, "the name of a tensor at byte"}, // a tensor read as a key
    {"one key less", NULL, fewer_keys, ""},
    {"key without name", NULL, key_without_name, "the name of a key at byte 24 has 0 bytes"},
    {"key beyond the file", NULL, key_of_2_pow_60, "the name of a key at byte 32 takes 1152921504"},
    {"key with a zero", NULL, key_with_zero, "has characters that no name has"},
    {"long key", key_long, NULL, "has 1099 bytes, expected 1 to 1024"},
    {"key twice", key_twice, NULL, "key 'test.count' is there twice"},
    {"kind", NULL, kind_99, "key 'test.count', byte"},
    {"truth", NULL, truth_2, "key 'test.truth' has the truth value 2, expected 0 or 1"},
    {"long text", NULL, text_too_long, "a text at byte"},
    {"kind of a list", NULL, list_kind_99, "99 is no type of values, expected 0 to 12"},
    {"long list", NULL, list_too_long, "a list of 8589934592 items of i32 does not fit"},
    {"list of 2^63", NULL, list_of_2_pow_63, "a list of 9223372036854775808 items of i32"},
    {"nested lists", nested_lists, NULL, "lists within each other deeper than 4"},
    {"no axes", NULL, axes_0, "tensor 'a.weight' has 0 axes, expected 1 to 4"},
    {"nine axes", NULL, axes_9, "tensor 'a.weight' has 9 axes, expected 1 to 4"},
    {"axis of 0", NULL, axis_0, "axis 0 of tensor 'a.weight' is 0, expected at least 1"},
    {"axis below 0", NULL, axis_negative, "axis 0 of tensor 'a.weight' is 18446744073709551615"},
    {"huge axis", NULL, axis_huge, "the size of tensor 'a.weight' does not fit in 64 bits"},
    {"larger axis", NULL, axis_larger, "tensor 'a.weight' has 5120 bytes from byte"},
    {"blocks", NULL, axis_no_blocks, "rows of 63 numbers, which blocks of 32 (Q8_0) do not fill"},
    {"type", NULL, type_5, "tensor 'a.weight' has the type 5 of ggml, which is not known here"},
    {"huge type", NULL, type_huge, "has the type 2147483649 of ggml"},
    {"tensor twice", tensor_twice, NULL, "tensor 'c' is there twice"},
    {"tensor without name", tensor_without_name, NULL, "the name of a tensor at byte"},
    {"place", NULL, offset_odd, "which is no multiple of the alignment 32"},
    {"huge place", NULL, offset_huge, "begins at byte 9223372036854775808 of the data"},
    {"overlap", NULL, offset_same,
        "tensors 'a.weight' and 'b.weight' overlap: one ends at byte 256"},
    {"hole", NULL, offset_hole, "bytes 0 to 32 of the data before tensor 'a.weight' belong to no"},
    {"alignment 3", alignment_3, NULL, "'general.alignment' is the number 3, expected a power of"},
    {"alignment 0", alignment_0, NULL, "'general.alignment' is the number 0, expected a power of"},
    {"alignment as text", alignment_text, NULL, "'general.alignment' is the text '32', expected"},
    {"other alignment", alignment_64, NULL, "which is no multiple of the alignment 64"},
    {"a part", part_of_many, NULL, "this is one of 3 parts of a model"},
    {"cut in the data", NULL, cut_in_data, "tensor 'c' has 12 bytes from byte"},
    {"cut in the table", NULL, cut_in_table, "an axis of a tensor at byte"},
    {"cut in the keys", NULL, cut_in_keys, "the length of a list at byte"},
    {"cut in the head", NULL, cut_in_head, "the number of tensors at byte 8 takes 8 bytes, but"},
};

static void damage_is_refused(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof damages / sizeof damages[0]; i++) {
        gguf_file f;
        parsed p = {0};
        small_file(&f);
        if (damages[i].file) damages[i].file(&f);
        p.bytes = gguf_bytes(&f);
        gguf_deinit(&f);
        if (damages[i].bytes) damages[i].bytes(&p.bytes);
        parse_bytes(&p, p.bytes.n);
        if (p.status != KT_EFORMAT || p.out.more || !strstr(p.err.text, "t.gguf: ") ||
            !strstr(p.err.text, damages[i].says))
            fail_msg("%s: '%s'", damages[i].name, p.status == KT_OK ? "read" : p.err.text);
        assert_true(p.arena.used_bytes < 1 << 20);
        forget(&p);
    }
}

static void an_alignment_is_taken(void **state) {
    (void)state;
    gguf_file f;
    parsed p;
    gguf_init(&f);
    f.alignment = 256;
    gguf_tensor(&f, "c", GGUF_F32, vector, 1, "twelve bytes", 12);
    gguf_tensor(&f, "d", GGUF_F32, vector, 1, "twelve bytes", 12);
    parse(&p, &f);
    if (p.status != KT_OK) fail_msg("%s", p.err.text);
    assert_int_equal(p.out.stored[0].offset % 256, 0);
    assert_int_equal(p.out.stored[1].offset - p.out.stored[0].offset, 256);
    forget(&p);
}

int main(void) {
    kt_log_set_level(KT_LOG_QUIET);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_header_is_read),
        cmocka_unit_test(tensors_are_described),
        cmocka_unit_test(a_foreign_file_is_read),
        cmocka_unit_test(a_part_of_a_header_asks_for_more),
        cmocka_unit_test(damage_is_refused),
        cmocka_unit_test(an_alignment_is_taken),
    };
    return cmocka_run_group_tests_name("gguf", tests, NULL, NULL);
}
