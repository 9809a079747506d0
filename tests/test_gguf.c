// GGUF files: headers read and refused, models found in them, tokenizers equal to those of
// tokenizer.json, and twins of safetensors checkpoints that answer the same.
#include "loader/gguf.h"
#include "loader/model.h"
#include "runtime/base/file.h"
#include "runtime/base/log.h"
#include "runtime/exec/dump.h"
#include "runtime/kotaro.h"
#include "tests/fabricate.h"
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

// ---- tokenizers

static void check_ids(const kt_tokenizer *a, const kt_tokenizer *b, kt_str text, bool special) {
    kt_arena arena = {0};
    kt_ids x = {0}, y = {0};
    kt_err err;
    assert_int_equal(kt_tokenizer_encode(a, &arena, text, special, &x, &err), KT_OK);
    assert_int_equal(kt_tokenizer_encode(b, &arena, text, special, &y, &err), KT_OK);
    if (x.n != y.n || (x.n > 0 && memcmp(x.at, y.at, x.n * sizeof *x.at) != 0))
        fail_msg("'%.*s'", KT_STR_ARG(text));
    kt_arena_deinit(&arena);
}

static int hex(char c) {
    return c <= '9' ? c - '0' : c - 'a' + 10;
}

// The texts of the goldens: lines of s or p, hex, ids. Tokens that strip white space are left out:
// GGUF does not say that they do.
static int check_texts(const kt_tokenizer *a, const kt_tokenizer *b, const char *path) {
    kt_arena arena = {0};
    kt_err err;
    kt_str file;
    assert_int_equal(kt_file_read(&arena, path, 16 << 20, &file, &err), KT_OK);
    int n = 0;
    while (file.n > 0) {
        ptrdiff_t newline = kt_str_find(file, '\n');
        assert_true(newline > 0);
        kt_str line = kt_str_slice(file, 0, (size_t)newline);
        file = kt_str_slice(file, (size_t)newline + 1, file.n);
        kt_str code = kt_str_slice(line, 2, line.n);
        code = kt_str_slice(code, 0, (size_t)kt_str_find(code, '\t'));
        kt_buf text = {0};
        for (size_t i = 0; i + 1 < code.n; i += 2) {
            char byte = (char)(hex(code.at[i]) * 16 + hex(code.at[i + 1]));
            kt_buf_add(&text, &byte, 1);
        }
        kt_str bytes = {text.n > 0 ? text.at : "", text.n};
        if (kt_str_find_text(bytes, "TAG_") < 0 && kt_str_find_text(bytes, "ねこ") < 0) {
            check_ids(a, b, bytes, line.at[0] == 's');
            n++;
        }
        kt_buf_deinit(&text);
    }
    kt_arena_deinit(&arena);
    return n;
}

static kt_tokenizer *open_tokenizer(const char *path) {
    kt_tokenizer *out = NULL;
    kt_err err;
    if (kt_tokenizer_open(path, &out, &err) != KT_OK) fail_msg("%s", err.text);
    return out;
}

static void a_tokenizer_is_the_one_of_its_json(void **state) {
    (void)state;
    gguf_file f;
    gguf_init(&f);
    gguf_add_tokenizer(&f, "tests/data/small_tokenizer.json", "qwen2");
    kt_tokenizer *made = open_tokenizer(gguf_write(&f, "build/fake/gguf/small.gguf"));
    gguf_deinit(&f);
    assert_true(check_texts(made, test_small, "tests/data/small_tokenizer.goldens") > 500);
    assert_int_equal(kt_tokenizer_size(made), kt_tokenizer_size(test_small));
    for (int32_t i = 0; i < kt_tokenizer_size(made); i++) {
        assert_true(kt_str_eq(kt_tokenizer_bytes(made, i), kt_tokenizer_bytes(test_small, i)));
        assert_int_equal(kt_tokenizer_is_special(made, i), kt_tokenizer_is_special(test_small, i));
        assert_int_equal(kt_tokenizer_is_added(made, i), kt_tokenizer_is_added(test_small, i));
    }
    kt_tokenizer_close(made);
}

// A tokenizer whose tokens are all strings within a few texts, and merges all ways to make them.
typedef struct strings {
    kt_arena arena;
    KT_VEC(kt_str) tokens;
    KT_VEC(kt_str) merges;
} strings;

static bool inside_character(kt_str text, size_t at) {
    return at < text.n && ((unsigned char)text.at[at] & 0xC0) == 0x80;
}

static void add_string(strings *s, kt_str token) {
    for (size_t k = 0; k < s->tokens.n; k++)
        if (kt_str_eq(s->tokens.at[k], token)) return;
    KT_PUSH(&s->arena, &s->tokens, token);
    for (size_t cut = 1; cut < token.n; cut++) {
        if (inside_character(token, cut)) continue;
        kt_str left = kt_str_slice(token, 0, cut), right = kt_str_slice(token, cut, token.n);
        char *merge = kt_arena_printf(&s->arena, "%.*s %.*s", KT_STR_ARG(left), KT_STR_ARG(right));
        KT_PUSH(&s->arena, &s->merges, kt_str_from(merge));
    }
}

static void add_strings(strings *s, kt_str text) {
    for (size_t from = 0; from < text.n; from++)
        for (size_t to = from + 1; to <= text.n; to++)
            if (!inside_character(text, from) && !inside_character(text, to))
                add_string(s, kt_str_slice(text, from, to));
}

// What each name of patterns cuts apart: a piece becomes one token.
static void patterns_have_names(void **state) {
    (void)state;
    static const char *const texts[] = {"12345",
        "\xC4\xA0"
        "12",
        "it's", "IT'S"};
    static const struct {
        const char *pre, *text;
        size_t n; // pieces
    } rows[] = {
        {"qwen2", "12345", 5},
        {"smollm", "12345", 5},
        {"gpt-2", "12345", 1},
        {"llama-bpe", "12345", 2},
        {"default", "12345", 2},
        {"smollm", " 12", 3},
        {"gpt-2", " 12", 1},
        {"qwen2", "it's", 2},
        {"gpt-2", "IT'S", 3},
        {"llama-bpe", "IT'S", 2},
    };
    strings s = {0};
    for (int i = 0; i < 4; i++) add_strings(&s, kt_str_from(texts[i]));
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        gguf_file f;
        gguf_init(&f);
        gguf_key_text(&f, "tokenizer.ggml.model", KT_STR("gpt2"));
        gguf_key_text(&f, "tokenizer.ggml.pre", kt_str_from(rows[i].pre));
        gguf_key_texts(&f, "tokenizer.ggml.tokens", s.tokens.at, s.tokens.n);
        gguf_key_texts(&f, "tokenizer.ggml.merges", s.merges.at, s.merges.n);
        kt_tokenizer *made = open_tokenizer(gguf_write(&f, "build/fake/gguf/pre.gguf"));
        kt_ids ids = {0};
        kt_err err;
        kt_str text = kt_str_from(rows[i].text);
        if (kt_tokenizer_encode(made, &s.arena, text, false, &ids, &err) != KT_OK)
            fail_msg("%s", err.text);
        if (ids.n != rows[i].n)
            fail_msg("%s: '%s' has %zu pieces", rows[i].pre, rows[i].text, ids.n);
        kt_tokenizer_close(made);
        gguf_deinit(&f);
    }
    kt_arena_deinit(&s.arena);
}

static void other_tokenizers_are_refused(void **state) {
    (void)state;
    const kt_str tokens[] = {KT_STR("a"), KT_STR("b"), KT_STR("ab")};
    const kt_str twice[] = {KT_STR("a"), KT_STR("b"), KT_STR("a")};
    const kt_str merge[] = {KT_STR("a b")}, bad_merge[] = {KT_STR("a c")},
                 no_merge[] = {KT_STR("ab")};
    const int32_t types[] = {1, 1, 1}, odd[] = {1, 7, 1};
    static const struct {
        const char *model, *pre;
        int what; // 1: no tokens, 2: twice, 3: bad merge, 4: no pair, 5: two types, 6: odd type
        const char *says;
    } rows[] = {
        {"llama", "default", 0,
            "'tokenizer.ggml.model' is the text 'llama', which is not supported"},
        {"bert", "default", 0, "'tokenizer.ggml.model' is the text 'bert', which is not supported"},
        {"gpt2", "deepseek-llm", 0,
            "'tokenizer.ggml.pre' is the text 'deepseek-llm', which is not"},
        {"gpt2", "qwen2", 1, "'tokenizer.ggml.tokens' is nothing, which is not supported"},
        {"gpt2", "qwen2", 2, "tokenizer.ggml.tokens[2] is 'a', and so is token 0"},
        {"gpt2", "qwen2", 3, "tokenizer.ggml.merges[0] ('a' and 'c'): 'c' is not in"},
        {"gpt2", "qwen2", 4, "tokenizer.ggml.merges[0] is 'ab', expected \"a b\""},
        {"gpt2", "qwen2", 5, "there are 3 tokens in 'tokenizer.ggml.tokens' and 2 types"},
        {"gpt2", "qwen2", 6, "'tokenizer.ggml.token_type'[1] is 7, expected 1 to 6"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        gguf_file f;
        int what = rows[i].what;
        gguf_init(&f);
        gguf_key_text(&f, "tokenizer.ggml.model", kt_str_from(rows[i].model));
        gguf_key_text(&f, "tokenizer.ggml.pre", kt_str_from(rows[i].pre));
        if (what != 1) gguf_key_texts(&f, "tokenizer.ggml.tokens", what == 2 ? twice : tokens, 3);
        gguf_key_i32s(&f, "tokenizer.ggml.token_type", what == 6 ? odd : types, what == 5 ? 2 : 3);
        gguf_key_texts(&f, "tokenizer.ggml.merges",
            what == 3   ? bad_merge
            : what == 4 ? no_merge
                        : merge,
            1);
        kt_tokenizer *made = NULL;
        kt_err err;
        const char *path = gguf_write(&f, "build/fake/gguf/bad.gguf");
        kt_status status = kt_tokenizer_open(path, &made, &err);
        if (status != KT_EFORMAT || !strstr(err.text, rows[i].says)) fail_msg("%s", err.text);
        gguf_deinit(&f);
    }
}

// ---- models

typedef struct opened {
    kt_arena arena;
    kt_diag diag;
    kt_err err;
    kt_model model;
    kt_status status;
} opened;

static void open_model(opened *o, const char *file, const char *path) {
    *o = (opened){0};
    kt_diag_init(&o->diag, &o->arena);
    kt_registry *registry = kt_registry_open(&o->arena, "ops", NULL, 0, &o->diag);
    assert_non_null(registry);
    o->status = kt_model_open(&o->arena, registry, &file, 1, path, &o->model, &o->diag, &o->err);
}

static void close_model(opened *o) {
    if (o->status == KT_OK) kt_model_close(&o->model);
    kt_arena_deinit(&o->arena);
}

static void must_open(opened *o, const char *file, const char *path) {
    open_model(o, file, path);
    if (o->status == KT_OK) return;
    kt_buf said = {0};
    kt_diag_print(&o->diag, &said);
    fail_msg("%s\n%s", o->err.text, said.n > 0 ? said.at : "");
}

static void must_refuse(const char *file, const char *path, const char *says) {
    opened o;
    open_model(&o, file, path);
    kt_buf said = {0};
    kt_diag_print(&o.diag, &said);
    kt_buf_printf(&said, "%s", o.status == KT_OK ? "no error" : o.err.text);
    if (o.status == KT_OK || !strstr(said.at, says))
        fail_msg("%s: no '%s' in: %s", path, says, said.at);
    kt_buf_deinit(&said);
    close_model(&o);
}

#define TEXT_MODEL   "pipelines/qwen2.model.yaml"
#define VISION_MODEL "pipelines/minicpm_v.model.yaml"

static const kt_weight *weight(const opened *o, const char *name) {
    const kt_weight *w = kt_model_weight(&o->model, kt_str_from(name));
    if (!w) fail_msg("no weight '%s'", name);
    return w;
}

static int64_t constant(const opened *o, const char *name) {
    kt_value value;
    assert_true(kt_model_constant(&o->model, kt_str_from(name), &value));
    return value.i;
}

// A pair with as many layers as MiniCPM-V 2.6 has, and as many tensors.
static fake_model deep(void) {
    fake_model m = fake_vision;
    m.layers = 28;
    m.vis_layers = 27;
    m.nf4 = false;
    m.prefix = "llm.";
    return m;
}

static void a_pair_of_files_is_one_model(void **state) {
    (void)state;
    const fake_model m = deep();
    const gguf_twin twin = {.architecture = "qwen2"};
    opened o;
    fabricate("build/fake/gguf/deep_hf", &m);
    test_remove("build/fake/gguf/deep");
    fabricate_gguf("build/fake/gguf/deep_hf", "build/fake/gguf/deep", &m, &twin);
    must_open(&o, VISION_MODEL, "build/fake/gguf/deep");
    assert_int_equal(o.model.checkpoint.n_files, 2);
    assert_int_equal(o.model.checkpoint.n_stored, 339 + 455);
    assert_int_equal(constant(&o, "layers"), 28);
    assert_int_equal(constant(&o, "vis_layers"), 27);
    assert_int_equal(constant(&o, "places"), m.places);
    assert_int_equal(constant(&o, "queries"), m.queries);
    assert_int_equal(constant(&o, "vocab"), m.vocab);
    assert_int_equal(constant(&o, "side"), m.side);
    assert_string_equal(o.model.tokenizer_path, "build/fake/gguf/deep/text.gguf");
    const kt_weight *up = weight(&o, "vit.26.mlp.up"), *proj = weight(&o, "res.proj");
    assert_true(kt_str_is(up->parts[0]->name, "v.blk.26.ffn_down.weight"));
    assert_false(proj->transposed);
    assert_int_equal(weight(&o, "dec.3.attn.q")->interleave, 0);
    assert_true(kt_str_is(weight(&o, "vis.patch")->parts[0]->name, "v.patch_embd.weight"));
    close_model(&o);
    must_open(
        &o, TEXT_MODEL, "build/fake/gguf/deep"); // the text model alone: the mmproj is left out
    assert_int_equal(o.model.checkpoint.n_stored, 339);
    close_model(&o);
}

static void only_llama_files_are_interleaved(void **state) {
    (void)state;
    fake_model m = fake_text;
    m.bias = true;
    gguf_twin twin = {.architecture = "llama"};
    opened o;
    fabricate("build/fake/gguf/llama_hf", &m);
    fabricate_gguf("build/fake/gguf/llama_hf", "build/fake/gguf/llama", &m, &twin);
    must_open(&o, TEXT_MODEL, "build/fake/gguf/llama");
    assert_int_equal(weight(&o, "dec.1.attn.q")->interleave, m.hd);
    assert_int_equal(weight(&o, "dec.1.attn.k_bias")->interleave, m.hd);
    assert_int_equal(weight(&o, "dec.1.attn.v")->interleave, 0);
    assert_ptr_equal(weight(&o, "head")->parts[0], weight(&o, "embed")->parts[0]); // tied
    close_model(&o);
    twin.architecture = "qwen3";
    fabricate_gguf("build/fake/gguf/llama_hf", "build/fake/gguf/other", &m, &twin);
    must_refuse(TEXT_MODEL, "build/fake/gguf/other",
        "'general.architecture' is the text 'qwen3', this model file is for qwen2 or llama");
}

// Both ways of naming the two matrices of the mmproj's MLP.
static void names_of_the_mlp_are_told_by_shape(void **state) {
    (void)state;
    fake_model m = fake_vision;
    m.nf4 = false;
    const gguf_twin twin = {.architecture = "qwen2", .new_names = true};
    opened o;
    fabricate("build/fake/gguf/new_hf", &m);
    fabricate_gguf("build/fake/gguf/new_hf", "build/fake/gguf/new", &m, &twin);
    must_open(&o, VISION_MODEL, "build/fake/gguf/new");
    assert_true(kt_str_is(weight(&o, "vit.0.mlp.up")->parts[0]->name, "v.blk.0.ffn_up.weight"));
    assert_true(kt_str_is(weight(&o, "vit.0.mlp.up_bias")->parts[0]->name, "v.blk.0.ffn_up.bias"));
    assert_true(kt_str_is(weight(&o, "vit.0.down")->parts[0]->name, "v.blk.0.ffn_down.weight"));
    close_model(&o);
}

// Changes bytes of a file, `skip` behind a text.
static void patch(const char *path, const char *text, size_t skip, const char *with, size_t n) {
    kt_arena arena = {0};
    kt_str bytes;
    kt_err err;
    assert_int_equal(kt_file_read(&arena, path, 64 << 20, &bytes, &err), KT_OK);
    ptrdiff_t at = kt_str_find_text(bytes, text);
    assert_true(at > 0);
    char *changed = kt_arena_copy(&arena, bytes.at, bytes.n);
    memcpy(changed + at + skip, with, n);
    test_write(path, changed, bytes.n);
    kt_arena_deinit(&arena);
}

static void other_projectors_are_refused(void **state) {
    (void)state;
    fake_model m = fake_vision;
    m.nf4 = false;
    const gguf_twin twin = {.architecture = "qwen2"};
    fabricate("build/fake/gguf/other_hf", &m);
    fabricate_gguf("build/fake/gguf/other_hf", "build/fake/gguf/projector", &m, &twin);
    patch("build/fake/gguf/projector/mmproj.gguf", "clip.minicpmv_version", 21 + 4, "\x05", 1);
    must_refuse(VISION_MODEL, "build/fake/gguf/projector",
        "'clip.minicpmv_version' is the number 5, this model file is for 3");
}

static void copy_file(const char *from, const char *to) {
    kt_arena arena = {0};
    kt_str bytes;
    kt_err err;
    assert_int_equal(kt_file_read(&arena, from, 64 << 20, &bytes, &err), KT_OK);
    test_write(to, bytes.at, bytes.n);
    kt_arena_deinit(&arena);
}

#define MANY "build/fake/gguf/many/"

static void files_are_chosen(void **state) {
    (void)state;
    fake_model m = fake_vision;
    m.nf4 = false;
    const gguf_twin twin = {
        .architecture = "qwen2", .text = "model-Q8_0.gguf", .mmproj = "model-mmproj-f16.gguf"};
    opened o;
    fabricate("build/fake/gguf/many_hf", &m);
    test_remove("build/fake/gguf/many");
    fabricate_gguf("build/fake/gguf/many_hf", "build/fake/gguf/many", &m, &twin);
    must_open(&o, VISION_MODEL, MANY "model-Q8_0.gguf");
    assert_string_equal(o.model.folder, "build/fake/gguf/many");
    assert_string_equal(o.model.checkpoint.files[1].path, MANY "model-mmproj-f16.gguf");
    close_model(&o);
    copy_file(MANY "model-Q8_0.gguf", MANY "model-Q4_0.gguf");
    must_refuse(VISION_MODEL, "build/fake/gguf/many",
        "several files of 'build/fake/gguf/many' match '*.gguf not *mmproj*', and one is to be "
        "taken: model-Q4_0.gguf, model-Q8_0.gguf; name the file of the model, as in --model "
        "build/fake/gguf/many/model-Q4_0.gguf");
    must_open(&o, VISION_MODEL, MANY "model-Q4_0.gguf");
    assert_string_equal(o.model.checkpoint.files[0].path, MANY "model-Q4_0.gguf");
    close_model(&o);
    must_refuse(TEXT_MODEL, MANY "model-mmproj-f16.gguf", "several files");
    test_remove(MANY "model-Q4_0.gguf");
    must_refuse(TEXT_MODEL, MANY "model-mmproj-f16.gguf",
        "is no file that this pipeline's model file takes");
    must_open(&o, VISION_MODEL, MANY "model-mmproj-f16.gguf"); // the other one is beside it
    close_model(&o);
    test_remove(MANY "model-mmproj-f16.gguf");
    must_refuse(VISION_MODEL, MANY "model-Q8_0.gguf",
        "no file of 'build/fake/gguf/many' matches '*mmproj*.gguf'; there is model-Q8_0.gguf");
    test_write(MANY "notes.txt", "no model", 8);
    must_refuse(VISION_MODEL, MANY "notes.txt", "a model is the folder as downloaded, or a .gguf");
}

// A folder with config.json but without safetensors is no folder of the hub's.
static void a_config_does_not_hide_gguf(void **state) {
    (void)state;
    fake_model m = fake_text;
    const gguf_twin twin = {.architecture = "qwen2"};
    opened o;
    fabricate("build/fake/gguf/both_hf", &m);
    test_remove("build/fake/gguf/both");
    fabricate_gguf("build/fake/gguf/both_hf", "build/fake/gguf/both", &m, &twin);
    copy_file("build/fake/gguf/both_hf/config.json", "build/fake/gguf/both/config.json");
    must_open(&o, TEXT_MODEL, "build/fake/gguf/both");
    assert_non_null(o.model.checkpoint.files[0].gguf);
    close_model(&o);
    copy_file(
        "build/fake/gguf/both_hf/model.safetensors", "build/fake/gguf/both/model.safetensors");
    must_open(&o, TEXT_MODEL, "build/fake/gguf/both");
    assert_null(o.model.checkpoint.files[0].gguf);
    close_model(&o);
    must_open(&o, TEXT_MODEL, "build/fake/gguf/both/text.gguf"); // named, so it is taken
    assert_non_null(o.model.checkpoint.files[0].gguf);
    close_model(&o);
}

static void stop_tokens_are_found(void **state) {
    (void)state;
    fake_model m = fake_text;
    const gguf_twin twin = {.architecture = "qwen2", .eos = 5};
    opened o;
    test_remove("build/fake/gguf/stop_hf");
    fabricate("build/fake/gguf/stop_hf", &m);
    fabricate_gguf("build/fake/gguf/stop_hf", "build/fake/gguf/stop", &m, &twin);
    must_open(&o, TEXT_MODEL, "build/fake/gguf/stop");
    assert_int_equal(o.model.n_stop_ids, 1);
    assert_int_equal(o.model.stop_ids[0], 5);
    close_model(&o);
    must_open(&o, TEXT_MODEL, "build/fake/gguf/stop_hf");
    assert_int_equal(o.model.n_stop_ids, 0);
    test_put(&o.arena, "build/fake/gguf/stop_hf", "generation_config.json",
        "{\"eos_token_id\": [7, 3]}");
    close_model(&o);
    must_open(&o, TEXT_MODEL, "build/fake/gguf/stop_hf");
    assert_int_equal(o.model.n_stop_ids, 2);
    assert_true(o.model.stop_ids[0] == 7 && o.model.stop_ids[1] == 3);
    close_model(&o);
}

// Changes the text file of a small model and opens it.
static void refuse_text_file(
    const char *text, size_t skip, const char *with, size_t n, const char *says) {
    fake_model m = fake_text;
    const gguf_twin twin = {.architecture = "qwen2"};
    fabricate("build/fake/gguf/odd_hf", &m);
    fabricate_gguf("build/fake/gguf/odd_hf", "build/fake/gguf/odd", &m, &twin);
    patch("build/fake/gguf/odd/text.gguf", text, skip, with, n);
    must_refuse(TEXT_MODEL, "build/fake/gguf/odd", says);
}

static void models_that_do_not_fit_are_refused(void **state) {
    (void)state;
    refuse_text_file("blk.0.attn_k.weight", 0, "blk.0.attn_z.weight", 19,
        "weight 'dec.0.attn.k': no tensor 'blk.0.attn_k.weight' in the checkpoint");
    refuse_text_file("qwen2.attention.head_count_kv", 8, "attention.head_count_xx", 21,
        "weight 'dec.0.attn.k' is linear[64, 64], 'blk.0.attn_k.weight' is [32, 64]");
    refuse_text_file("qwen2.embedding_length", 6, "embedding_lengtz", 16,
        "there is no key '$arch.embedding_length' in config");
    refuse_text_file("blk.1.ffn_norm.weight", 21 + 4 + 8, "\x1a\0\0\0", 4,
        "weight 'dec.1.mlp.norm': 'blk.1.ffn_norm.weight' holds I32, expected f32, f16 or bf16");
}

static void types_without_a_format_are_named(void **state) {
    (void)state;
    const fake_model m = fake_text;
    const int64_t shape[] = {m.vocab, 256};
    gguf_file f;
    kt_str tokens[80];
    for (int i = 0; i < 80; i++) tokens[i] = KT_STR("t");
    gguf_init(&f);
    gguf_key_text(&f, "general.architecture", KT_STR("qwen2"));
    static const char *const keys[] = {"block_count", "attention.head_count", "context_length",
        "feed_forward_length", "attention.key_length"};
    static const uint32_t values[] = {1, 2, 512, 256, 128};
    for (int i = 0; i < 5; i++) {
        char key[64];
        snprintf(key, sizeof key, "qwen2.%s", keys[i]);
        gguf_key_u32(&f, key, values[i]);
    }
    gguf_key_u32(&f, "qwen2.embedding_length", 256);
    gguf_key_f32(&f, "qwen2.attention.layer_norm_rms_epsilon", 1e-6F);
    gguf_key_texts(&f, "tokenizer.ggml.tokens", tokens, 80);
    static const char zeros[80 * 84];
    gguf_tensor(&f, "token_embd.weight", GGUF_Q2_K, shape, 2, zeros, sizeof zeros);
    gguf_write(&f, "build/fake/gguf/q2/q2.gguf");
    gguf_deinit(&f);
    must_refuse(TEXT_MODEL, "build/fake/gguf/q2",
        "weight 'embed': 'token_embd.weight' holds Q2_K, for which no format is installed");
    must_refuse(
        TEXT_MODEL, "build/fake/gguf/q2", "download the model in another type (F16, BF16, ");
    must_refuse(TEXT_MODEL, "build/fake/gguf/q2", "'when: ggml_type 10'");
}

// ---- answers

enum { MOST_TENSORS = 4096 };

// What a run makes: a number for each tensor that its layers hand on, and the answer.
typedef struct made {
    uint64_t sums[MOST_TENSORS];
    int n;
    kt_buf text;
    int64_t tokens;
    bool lively; // some numbers differ
} made;

static kt_status take(void *ctx, const kt_dump_tensor *tensor, kt_err *err) {
    made *m = ctx;
    if (m->n == MOST_TENSORS) return KT_FAIL(err, KT_EUSAGE, "too many tensors");
    size_t bytes = (size_t)(tensor->n * kt_dtype_bytes(tensor->dtype));
    kt_str data = {tensor->data, bytes};
    m->sums[m->n++] = kt_str_hash(data) ^ kt_str_hash(tensor->address);
    if (kt_str_find_text(tensor->address, "logits") < 0) return KT_OK;
    const float *logits = tensor->data;
    for (int64_t i = 1; i < tensor->n; i++) m->lively = m->lively || logits[i] != logits[0];
    return KT_OK;
}

static void on_result(void *ctx, int image, const kt_result *result) {
    made *m = ctx;
    (void)image;
    for (int i = 0; i < result->n_items; i++) {
        kt_buf_str(&m->text, result->items[i].text);
        m->tokens += result->items[i].tokens;
    }
}

static void on_failed(void *ctx, int image, const char *path, const kt_err *err) {
    (void)ctx, (void)image;
    fail_msg("%s: %s", path ? path : "", err->text);
}

static made *run(const char *pipeline, const char *model, const char *picture) {
    made *m = calloc(1, sizeof *m);
    assert_non_null(m);
    const kt_dump_to to = {m, take};
    kt_options_run options = {.pipeline = pipeline,
        .model = model,
        .question = "What is this?",
        .device = KT_DEVICE_CPU,
        .max_tokens = 6,
        .greedy = true,
        .dump_to = &to};
    kt_session *session = NULL;
    kt_buf report = {0};
    kt_err err;
    if (kt_session_open(&options, &session, &report, &err) != KT_OK)
        fail_msg("%s\n%s", err.text, report.n > 0 ? report.at : "");
    const kt_events events = {.ctx = m, .result = on_result, .failed = on_failed};
    if (kt_session_run(session, &picture, picture ? 1 : 0, &events, &err) != KT_OK)
        fail_msg("%s", err.text);
    kt_session_close(session);
    kt_buf_deinit(&report);
    return m;
}

static void same_answers(
    const char *pipeline, const char *hf, const char *gguf, const char *picture) {
    made *a = run(pipeline, hf, picture), *b = run(pipeline, gguf, picture);
    assert_true(a->n > 10 && a->lively && a->tokens > 0);
    assert_int_equal(a->n, b->n);
    for (int i = 0; i < a->n; i++)
        if (a->sums[i] != b->sums[i]) fail_msg("%s: tensor %d of %d differs", gguf, i, a->n);
    assert_int_equal(a->tokens, b->tokens);
    assert_int_equal(a->text.n, b->text.n);
    assert_true(a->text.n == 0 || memcmp(a->text.at, b->text.at, a->text.n) == 0);
    kt_buf_deinit(&a->text);
    kt_buf_deinit(&b->text);
    free(a);
    free(b);
}

static fake_model lively_text(void) {
    fake_model m = fake_text;
    m.d = 128;
    m.f = 192;
    m.heads = 4;
    m.kv_heads = 2;
    m.vocab = 500;
    m.seed = 7;
    m.tokenizer = "tests/data/small_tokenizer.json";
    return m;
}

static void a_text_twin(const fake_model *m, const gguf_twin *twin) {
    test_remove("build/fake/gguf/twin");
    fabricate("build/fake/gguf/twin_hf", m);
    fabricate_gguf("build/fake/gguf/twin_hf", "build/fake/gguf/twin", m, twin);
    same_answers("pipelines/chat.yaml", "build/fake/gguf/twin_hf", "build/fake/gguf/twin", NULL);
}

static void a_qwen2_twin_answers_the_same(void **state) {
    (void)state;
    const gguf_twin twin = {.architecture = "qwen2"};
    fake_model m = lively_text();
    m.bias = true;
    m.tied = false;
    a_text_twin(&m, &twin);
    m.wide = true;
    a_text_twin(&m, &twin);
}

static void a_llama_twin_answers_the_same(void **state) {
    (void)state;
    const gguf_twin twin = {.architecture = "llama"};
    fake_model m = lively_text();
    a_text_twin(&m, &twin);
    m.bias = true;
    m.wide = true;
    a_text_twin(&m, &twin);
}

// Matrices in blocks of eight bits, which hold the twin's numbers exactly.
static void a_quantised_twin_answers_the_same(void **state) {
    (void)state;
    const gguf_twin qwen2 = {.architecture = "qwen2", .q8 = true};
    const gguf_twin llama = {.architecture = "llama", .q8 = true};
    fake_model m = lively_text();
    m.grid = true;
    a_text_twin(&m, &qwen2);
    a_text_twin(&m, &llama);
}

static void a_pair_answers_the_same(void **state) {
    (void)state;
    const gguf_twin twin = {.architecture = "qwen2"};
    fake_model m = fake_vision;
    m.nf4 = false;
    m.vocab = 500;
    m.max_slices = 9; // what a GGUF pair has
    m.seed = 11;
    m.tokenizer = "tests/data/small_tokenizer.json";
    test_remove("build/fake/gguf/pair");
    fabricate("build/fake/gguf/pair_hf", &m);
    fabricate_gguf("build/fake/gguf/pair_hf", "build/fake/gguf/pair", &m, &twin);
    same_answers("pipelines/simple.yaml", "build/fake/gguf/pair_hf", "build/fake/gguf/pair",
        "examples/scene.jpg");
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
        cmocka_unit_test_setup_teardown(
            a_tokenizer_is_the_one_of_its_json, test_small_open, test_small_close),
        cmocka_unit_test(patterns_have_names),
        cmocka_unit_test(other_tokenizers_are_refused),
        cmocka_unit_test(a_pair_of_files_is_one_model),
        cmocka_unit_test(only_llama_files_are_interleaved),
        cmocka_unit_test(names_of_the_mlp_are_told_by_shape),
        cmocka_unit_test(other_projectors_are_refused),
        cmocka_unit_test(files_are_chosen),
        cmocka_unit_test(a_config_does_not_hide_gguf),
        cmocka_unit_test(stop_tokens_are_found),
        cmocka_unit_test(models_that_do_not_fit_are_refused),
        cmocka_unit_test(types_without_a_format_are_named),
        cmocka_unit_test(a_qwen2_twin_answers_the_same),
        cmocka_unit_test(a_llama_twin_answers_the_same),
        cmocka_unit_test(a_quantised_twin_answers_the_same),
        cmocka_unit_test(a_pair_answers_the_same),
    };
    return cmocka_run_group_tests_name("gguf", tests, NULL, NULL);
}
