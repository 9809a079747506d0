// The base layer: numbers, text, memory, files, threads.
#include "runtime/base/dtype.h"
#include "runtime/base/f16.h"
#include "runtime/base/file.h"
#include "runtime/base/hash.h"
#include "runtime/base/pool.h"
#include "tests/util.h"

#include <math.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h> // cmocka.h needs these four first

#include <cmocka.h>

static kt_str s(const char *text) {
    return kt_str_from(text);
}

// ---- status

static void status_message_and_notes(void **state) {
    (void)state;
    kt_err err;
    assert_int_equal(KT_FAIL(&err, KT_EIMAGE, "picture '%s' is broken", "a.png"), KT_EIMAGE);
    kt_err_note(&err, "byte %d", 17);
    assert_string_equal(err.text, "picture 'a.png' is broken\nnote: byte 17");
    assert_int_equal(err.code, KT_EIMAGE);
    assert_string_equal(kt_status_name(KT_EIMAGE), "image");
    assert_int_equal(kt_status_exit(KT_EIMAGE), 1);
    assert_int_equal(kt_status_exit(KT_EMEMORY), 4);
    assert_int_equal(kt_status_exit(KT_EINTERRUPTED), 130);
}

static void status_cuts_between_characters(void **state) {
    (void)state;
    char text[KT_ERR_TEXT * 2];
    for (size_t lead = 0; lead < 3; lead++) { // every place of a three-byte character at the edge
        memset(text, 'x', lead);
        size_t at = lead;
        for (; at + 3 < sizeof text; at += 3) memcpy(text + at, "猫", 3);
        text[at] = 0;
        kt_err err;
        kt_err_set(&err, KT_EFILE, "%s", text);
        size_t n = strlen(err.text);
        assert_true(n >= KT_ERR_TEXT - 3 && n < KT_ERR_TEXT);
        assert_true(kt_utf8_valid(s(err.text)));
        kt_err_note(&err, "more"); // full: nothing may happen
        assert_int_equal(strlen(err.text), n);
    }
}

// ---- arena

static void arena_marks_release_what_came_after(void **state) {
    (void)state;
    kt_arena arena = {0};
    char *kept = kt_arena_copy(&arena, "kept", 4);
    size_t used = arena.used_bytes;
    kt_arena_mark mark = kt_arena_get_mark(&arena);
    for (int i = 0; i < 100; i++) {
        unsigned char *p = kt_arena_alloc(&arena, 10000);
        assert_int_equal((uintptr_t)p % 16, 0);
        for (int k = 0; k < 10000; k++) assert_int_equal(p[k], 0);
        memset(p, 0xff, 10000);
    }
    assert_true(arena.used_bytes >= used + 1000000);
    kt_arena_reset(&arena, mark);
    assert_int_equal(arena.used_bytes, used);
    assert_string_equal(kept, "kept");
    unsigned char *again = kt_arena_alloc(&arena, 10000); // used before: must come zeroed
    for (int k = 0; k < 10000; k++) assert_int_equal(again[k], 0);
    kt_arena_deinit(&arena);
    assert_int_equal(arena.used_bytes, 0);
    assert_null(arena.last);
}

static void arena_empty_and_large(void **state) {
    (void)state;
    kt_arena arena = {0};
    char *a = kt_arena_alloc(&arena, 0), *b = kt_arena_alloc(&arena, 0);
    assert_non_null(a);
    assert_ptr_not_equal(a, b);
    char *large = kt_arena_alloc(&arena, 3 << 20);
    memset(large, 1, 3 << 20);
    assert_string_equal(kt_arena_printf(&arena, "%d-%s", 12, "ab"), "12-ab");
    KT_VEC(int) ids = {0};
    for (int i = 0; i < 1000; i++) KT_PUSH(&arena, &ids, i * 3);
    assert_int_equal(ids.n, 1000);
    for (int i = 0; i < 1000; i++) assert_int_equal(ids.at[i], i * 3);
    kt_arena_deinit(&arena);
}

// ---- strings

static void str_views(void **state) {
    (void)state;
    assert_true(kt_str_is(kt_str_trim(s(" \t a b\t ")), "a b"));
    assert_int_equal(kt_str_trim(s("  \t")).n, 0);
    assert_int_equal(kt_str_find(s("a.b.c"), '.'), 1);
    assert_int_equal(kt_str_find_last(s("a.b.c"), '.'), 3);
    assert_int_equal(kt_str_find(s(""), '.'), -1);
    assert_true(kt_str_starts(s("kernel"), s("ker")) && !kt_str_starts(s("ke"), s("ker")));
    assert_true(kt_str_ends(s("a.yaml"), s(".yaml")) && !kt_str_ends(s("yaml"), s(".yaml")));
    assert_true(kt_str_cmp(s("ab"), s("abc")) < 0 && kt_str_cmp(s("\xff"), s("a")) > 0);
    assert_int_equal(kt_str_cmp(s("x"), s("x")), 0);
    assert_true(kt_str_hash(s("a")) == 0xaf63dc4c8601ec8cULL); // FNV's own test vector
}

static void str_match_stars(void **state) {
    (void)state;
    static const struct {
        const char *pattern, *text;
        bool hit;
    } cases[] = {{"*", "", true}, {"", "", true}, {"", "a", false}, {"a*", "abc", true},
        {"*c", "abc", true}, {"a*c", "ac", true}, {"a*c", "acb", false}, {"*b*b", "abab", true},
        {"*ab", "aab", true}, {"a**d", "abcd", true}, {"model.*.weight", "model.3.weight", true},
        {"model.*.weight", "model.3.weights", false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(kt_str_match(s(cases[i].pattern), s(cases[i].text)), cases[i].hit);
}

static void str_to_i64(void **state) {
    (void)state;
    int64_t v;
    assert_true(kt_str_to_i64(s("-9223372036854775808"), &v) && v == INT64_MIN);
    assert_true(kt_str_to_i64(s("9223372036854775807"), &v) && v == INT64_MAX);
    assert_true(kt_str_to_i64(s("+7"), &v) && v == 7);
    assert_true(kt_str_to_i64(s("-0"), &v) && v == 0);
    static const char *const bad[] = {"", "-", "+", "9223372036854775808", "-9223372036854775809",
        " 1", "1 ", "0x10", "1.0", "99999999999999999999999", "--1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(kt_str_to_i64(s(bad[i]), &v));
}

static void str_to_f64(void **state) {
    (void)state;
    double v;
    assert_true(kt_str_to_f64(s("0.25"), &v) && v == 0.25);
    assert_true(kt_str_to_f64(s("-1e-3"), &v) && v == -1e-3);
    assert_true(kt_str_to_f64(s("1."), &v) && v == 1.0);
    assert_true(kt_str_to_f64(s(".5E2"), &v) && v == 50.0);
    static const char *const bad[] = {
        "", ".", "e5", "1e", "1e+", "0x1p3", "inf", "nan", "1e999", " 1", "1 ", "1,5", "1.2.3"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(kt_str_to_f64(s(bad[i]), &v));
}

static void str_to_bytes(void **state) {
    (void)state;
    int64_t v;
    assert_true(kt_str_to_bytes(s("8G"), &v) && v == 8LL << 30);
    assert_true(kt_str_to_bytes(s("512M"), &v) && v == 512LL << 20);
    assert_true(kt_str_to_bytes(s("64K"), &v) && v == 65536);
    assert_true(kt_str_to_bytes(s("1.5G"), &v) && v == 3LL << 29);
    assert_true(kt_str_to_bytes(s("123"), &v) && v == 123);
    static const char *const bad[] = {
        "", "G", "-1G", "-5", "1.5", "8GB", "1e30G", "9223372036854775807K"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(kt_str_to_bytes(s(bad[i]), &v));
}

static void str_checked_arithmetic(void **state) {
    (void)state;
    int64_t v;
    assert_true(kt_mul(INT64_MAX, 1, &v) && v == INT64_MAX);
    assert_true(kt_mul(0, INT64_MAX, &v) && v == 0);
    assert_false(kt_mul(INT64_MAX / 2 + 1, 2, &v));
    assert_false(kt_mul(-1, 1, &v));
    assert_true(kt_add(INT64_MAX - 1, 1, &v) && v == INT64_MAX);
    assert_false(kt_add(INT64_MAX, 1, &v));
    assert_false(kt_add(1, -1, &v));
}

static void str_utf8(void **state) {
    (void)state;
    assert_int_equal(kt_utf8_count(s("aé猫🐈")), 4);
    assert_true(kt_utf8_valid(s("aé猫🐈")));
    // cut, overlong, surrogate, beyond the last, lone continuation, bad continuation
    static const char *const bad[] = {"\xe7\x8c", "\xc0\x80", "\xe0\x80\x80", "\xed\xa0\x80",
        "\xf4\x90\x80\x80", "\x80", "\xe7\x8c(", "\xff"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_false(kt_utf8_valid(s(bad[i])));
    assert_int_equal(kt_utf8_count(s("a\xff\x80z")), 4);
}

static void str_distance(void **state) {
    (void)state;
    assert_int_equal(kt_str_distance(s("kitten"), s("sitting"), 9), 3);
    assert_int_equal(kt_str_distance(s("layers"), s("layres"), 9), 1); // a swap
    assert_int_equal(kt_str_distance(s(""), s("abc"), 9), 3);
    assert_int_equal(kt_str_distance(s("abc"), s("abc"), 0), 0);
    assert_int_equal(kt_str_distance(s("abc"), s("xyz"), 1), 2); // limit + 1
    assert_int_equal(kt_str_distance(s("a"), s("abcdefgh"), 3), 4);
}

static void str_suggestions(void **state) {
    (void)state;
    const kt_str known[] = {
        s("temperature"), s("top_k"), s("top_p"), s("items"), s("x"), s("repetition_penalty")};
    size_t n = sizeof known / sizeof *known;
    kt_str out[2];
    assert_int_equal(kt_str_near(s("temprature"), known, n, out), 1);
    assert_true(kt_str_is(out[0], "temperature"));
    assert_int_equal(kt_str_near(s("topk"), known, n, out), 2);
    assert_true(kt_str_is(out[0], "top_k") && kt_str_is(out[1], "top_p"));
    assert_int_equal(kt_str_near(s("repetition"), known, n, out), 1); // a beginning
    assert_true(kt_str_is(out[0], "repetition_penalty"));
    assert_int_equal(kt_str_near(s("wolf"), known, n, out), 0);
    assert_int_equal(kt_str_near(s("q"), known, n, out), 0);
}

static void buf_grows(void **state) {
    (void)state;
    kt_buf buf = {0};
    for (int i = 0; i < 500; i++) kt_buf_printf(&buf, "%d,", i % 10);
    assert_int_equal(buf.n, 1000);
    assert_int_equal(strlen(buf.at), 1000);
    assert_memory_equal(buf.at + 990, "5,6,7,8,9,", 10);
    kt_buf_clear(&buf);
    kt_buf_str(&buf, s("x"));
    assert_string_equal(buf.at, "x");
    kt_buf_deinit(&buf);
    assert_null(buf.at);
}

static void table_finds_and_replaces(void **state) {
    (void)state;
    enum { N = 5000 };
    kt_arena arena = {0};
    kt_table table;
    kt_table_init(&table, &arena);
    int64_t v;
    assert_false(kt_table_find(&table, s("a"), &v));
    for (int i = 0; i < N; i++) kt_table_set(&table, s(kt_arena_printf(&arena, "n%d", i)), i);
    for (int i = 0; i < N; i += 2) kt_table_set(&table, s(kt_arena_printf(&arena, "n%d", i)), -i);
    kt_table_set(&table, s(""), 77);
    assert_int_equal(table.n, N + 1);
    for (int i = 0; i < N; i++) {
        assert_true(kt_table_find(&table, s(kt_arena_printf(&arena, "n%d", i)), &v));
        assert_int_equal(v, i % 2 == 0 ? -i : i);
    }
    assert_true(kt_table_find(&table, s(""), &v) && v == 77);
    assert_false(kt_table_find(&table, s("n5000"), &v));
    kt_arena_deinit(&arena);
}

// ---- 16-bit floats, against double arithmetic

static double f16_value(uint16_t bits) {
    int exponent = (bits >> 10) & 31;
    double fraction = bits & 0x3ff;
    double size = exponent == 0 ? ldexp(fraction, -24) : ldexp(1024.0 + fraction, exponent - 25);
    return bits & 0x8000 ? -size : size;
}

static bool f16_is_nan(uint16_t bits) {
    return (bits & 0x7fff) > 0x7c00;
}

static uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static void f16_widens_every_value(void **state) {
    (void)state;
    static uint16_t in[65536];
    static float row[65536];
    for (int i = 0; i < 65536; i++) in[i] = (uint16_t)i;
    kt_f16_to_f32_row(in, row, 65536);
    for (int i = 0; i < 65536; i++) {
        float value = kt_f16_to_f32((uint16_t)i);
        if (f16_is_nan((uint16_t)i)) {
            assert_true(isnan(value) && isnan(row[i]));
            assert_true(f16_is_nan(kt_f32_to_f16(value)));
            continue;
        }
        double want =
            (i & 0x7fff) == 0x7c00 ? (i & 0x8000 ? -HUGE_VAL : HUGE_VAL) : f16_value((uint16_t)i);
        assert_true((double)value == want);
        assert_int_equal(signbit(value) != 0, i >> 15);
        assert_int_equal(bits_of(value), bits_of(row[i]));
        assert_int_equal(kt_f32_to_f16(value), i);
    }
}

// What narrowing must give, found by halving between neighbours; no shared step with the code under
// test.
static uint16_t nearest_f16(double value) {
    uint16_t sign = copysign(1.0, value) < 0 ? 0x8000 : 0;
    double size = fabs(value);
    if (size >= 65520.0) return sign | 0x7c00;
    uint16_t low = 0, high = 0x7c00; // value of `low` <= size < value of `high`
    while (high - low > 1) {
        uint16_t middle = (uint16_t)((low + high) / 2);
        if (f16_value(middle) <= size)
            low = middle;
        else
            high = middle;
    }
    double below = size - f16_value(low);
    double above = (high == 0x7c00 ? 65536.0 : f16_value(high)) - size;
    bool up = above < below || (above == below && (low & 1) != 0);
    return sign | (up ? high : low);
}

static uint32_t next_random(uint64_t *seed) {
    *seed = *seed * 6364136223846793005ULL + 1442695040888963407ULL;
    return (uint32_t)(*seed >> 32);
}

static void check_narrow(const float *in, size_t n) {
    uint16_t row[64];
    kt_f32_to_f16_row(in, row, n);
    for (size_t i = 0; i < n; i++) {
        uint16_t one = kt_f32_to_f16(in[i]);
        assert_int_equal(one, row[i]);
        if (isnan(in[i]))
            assert_true(f16_is_nan(one));
        else
            assert_int_equal(one, nearest_f16((double)in[i]));
    }
}

static void f16_narrows_to_nearest_even(void **state) {
    (void)state;
    // Around every midpoint between neighbours: exactly on it, and the f32 before and after.
    for (uint16_t low = 0; low < 0x7c00; low++) {
        float middle =
            (float)((f16_value(low) + (low == 0x7bff ? 65536.0 : f16_value(low + 1))) / 2);
        float in[6] = {middle, nextafterf(middle, 0.0F), nextafterf(middle, INFINITY)};
        for (int k = 0; k < 3; k++) in[3 + k] = -in[k];
        check_narrow(in, 6);
    }
    uint64_t seed = 7;
    for (int i = 0; i < 4000; i++) {
        float in[61]; // not a multiple of the vector width
        for (int k = 0; k < 61; k++) {
            uint32_t bits = next_random(&seed);
            if (k % 2 == 0) bits = (bits & 0x83ffffffU) | 0x34000000U; // near the denormals
            memcpy(&in[k], &bits, sizeof bits);
        }
        check_narrow(in, 61);
    }
    const float special[] = {0.0F, -0.0F, INFINITY, -INFINITY, NAN, 65504.0F, 65519.996F, 65520.0F,
        1e-45F, -1e-45F, 0x1p-24F, 0x1p-25F, 0x1.8p-25F, 3.4e38F};
    check_narrow(special, sizeof special / sizeof *special);
}

static void bf16_rounds_to_nearest_even(void **state) {
    (void)state;
    for (uint32_t i = 0; i < 65536; i++) {
        float value = kt_bf16_to_f32((uint16_t)i);
        assert_int_equal(bits_of(value), i << 16);
        if (isnan(value))
            assert_true(isnan(kt_bf16_to_f32(kt_f32_to_bf16(value))));
        else
            assert_int_equal(kt_f32_to_bf16(value), i);
    }
    static const uint32_t cases[][2] = {{0x3f808000, 0x3f80}, {0x3f818000, 0x3f82},
        {0x3f807fff, 0x3f80}, {0x3f808001, 0x3f81}, {0x7f7fffff, 0x7f80}, {0xff7fffff, 0xff80},
        {0x00008000, 0x0000}, {0x00018000, 0x0002}, {0x80008001, 0x8001}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        float value;
        memcpy(&value, &cases[i][0], sizeof value);
        assert_int_equal(kt_f32_to_bf16(value), cases[i][1]);
    }
}

static void dtype_names(void **state) {
    (void)state;
    for (int i = 0; i < KT_DTYPE_COUNT; i++) {
        kt_dtype found;
        assert_true(kt_dtype_find(s(kt_dtype_name((kt_dtype)i)), &found));
        assert_int_equal(found, i);
    }
    kt_dtype found;
    assert_false(kt_dtype_find(s("f64"), &found));
    assert_int_equal(kt_dtype_bytes(KT_DTYPE_BF16), 2);
    assert_int_equal(kt_dtype_bytes(KT_DTYPE_I64), 8);
}

// ---- hash

static void hash_vectors(void **state) {
    (void)state;
    char hex[65];
    kt_hash_hex(kt_hash_bytes("abc", 3), hex); // FIPS 180-4, appendix B.1
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    kt_hash_hex(kt_hash_bytes("", 0), hex);
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

static kt_hash hash_fields(const char *a, const char *b) {
    kt_hasher *hasher = kt_hasher_open();
    kt_hasher_field(hasher, a, strlen(a));
    kt_hasher_field(hasher, b, strlen(b));
    return kt_hasher_close(hasher);
}

static void hash_fields_do_not_run_together(void **state) {
    (void)state;
    kt_hash x = hash_fields("ab", "c"), y = hash_fields("a", "bc");
    assert_memory_not_equal(x.bytes, y.bytes, sizeof x.bytes);
    static const char joined[] = "\2\0\0\0\0\0\0\0ab\1\0\0\0\0\0\0\0c";
    kt_hash z = kt_hash_bytes(joined, sizeof joined - 1);
    assert_memory_equal(x.bytes, z.bytes, sizeof x.bytes);
}

// ---- files

typedef struct scratch {
    kt_arena arena;
    const char *folder;
} scratch;

static int enter_scratch(void **state) {
    scratch *here = calloc(1, sizeof *here);
    if (here == NULL) return -1;
    here->folder = kt_arena_printf(&here->arena, "%s/a 猫", test_folder(&here->arena));
    *state = here;
    return kt_os_mkdirs(here->folder) ? 0 : -1;
}

static int leave_scratch(void **state) {
    scratch *here = *state;
    test_remove(kt_path_folder(&here->arena, here->folder));
    kt_arena_deinit(&here->arena);
    free(here);
    return 0;
}

static void file_write_is_atomic_and_read_back(void **state) {
    scratch *here = *state;
    kt_err err;
    const char *path = kt_path_join(&here->arena, here->folder, "モデル.bin");
    assert_int_equal(kt_os_write_atomic(path, "one", 3, &err), KT_OK);
    assert_int_equal(kt_os_write_atomic(path, "second", 6, &err), KT_OK);
    kt_str text;
    assert_int_equal(kt_file_read(&here->arena, path, 6, &text, &err), KT_OK);
    assert_true(kt_str_is(text, "second"));
    assert_int_equal(text.at[6], 0);
    int n;
    kt_str *names = kt_os_list(&here->arena, here->folder, &n);
    assert_int_equal(n, 1); // no temporary file is left
    assert_true(kt_str_is(names[0], "モデル.bin"));
    kt_path_info info = kt_os_stat(path);
    assert_int_equal(info.kind, KT_PATH_FILE);
    assert_int_equal(info.size_bytes, 6);
    assert_true(kt_os_touch(path));
    assert_true(kt_os_remove(path));
    assert_int_equal(kt_os_stat(path).kind, KT_PATH_NONE);
}

static void file_write_failure_leaves_nothing(void **state) {
    scratch *here = *state;
    kt_err err;
    const char *path = kt_path_join(&here->arena, here->folder, "taken");
    assert_true(kt_os_mkdirs(kt_path_join(&here->arena, path, "inner")));
    assert_int_equal(kt_os_write_atomic(path, "x", 1, &err), KT_EFILE); // a folder is in the way
    assert_non_null(strstr(err.text, "taken"));
    int n;
    kt_os_list(&here->arena, here->folder, &n);
    assert_int_equal(n, 1);
}

static void file_read_refuses(void **state) {
    scratch *here = *state;
    kt_err err;
    kt_str text;
    const char *path = kt_path_join(&here->arena, here->folder, "f");
    assert_int_equal(kt_file_read(&here->arena, path, 9, &text, &err), KT_EFILE);
    assert_non_null(strstr(err.text, path));
    assert_int_equal(kt_file_read(&here->arena, here->folder, 9, &text, &err), KT_EFILE);
    assert_int_equal(kt_os_write_atomic(path, "0123456789", 10, &err), KT_OK);
    assert_int_equal(kt_file_read(&here->arena, path, 9, &text, &err), KT_EFORMAT);
    assert_int_equal(text.n, 0);

    kt_os_file *file;
    char part[8];
    assert_int_equal(kt_os_open(path, &file, &err), KT_OK);
    assert_int_equal(kt_os_size(file), 10);
    assert_int_equal(kt_os_read_at(file, 6, part, 4, &err), KT_OK);
    assert_memory_equal(part, "6789", 4);
    assert_int_equal(kt_os_read_at(file, 6, part, 5, &err), KT_EFILE); // one byte too many
    assert_int_equal(kt_os_read_at(file, 6, part, 0, &err), KT_OK);
    kt_os_close(file);
    kt_os_close(NULL);
}

static void list_is_sorted(void **state) {
    scratch *here = *state;
    kt_err err;
    static const char *const names[] = {"b", "a", "é", "B", ".hidden"};
    static const char *const sorted[] = {".hidden", "B", "a", "b", "é"};
    for (int i = 0; i < 5; i++) {
        const char *path = kt_path_join(&here->arena, here->folder, names[i]);
        assert_int_equal(kt_os_write_atomic(path, "", 0, &err), KT_OK);
    }
    int n;
    kt_str *found = kt_os_list(&here->arena, here->folder, &n);
    assert_int_equal(n, 5);
    for (int i = 0; i < 5; i++) assert_true(kt_str_is(found[i], sorted[i]));
    kt_os_list(&here->arena, kt_path_join(&here->arena, here->folder, "none"), &n);
    assert_int_equal(n, -1);
}

static void private_folder_refuses_what_others_can_write(void **state) {
    scratch *here = *state;
    kt_arena *arena = &here->arena;
    const char *folder = kt_path_join(arena, here->folder, "cache");
    assert_true(kt_os_private_folder(folder)); // made
    assert_true(kt_os_private_folder(folder)); // found
    const char *link = kt_path_join(arena, here->folder, "link");
    const char *make_link[] = {"ln", "-s", folder, link, NULL};
    const char *open_up[] = {"chmod", "g+w", folder, NULL};
    if (kt_os_run(make_link, NULL) != 0) skip(); // no such programs here
    assert_false(kt_os_private_folder(link));
    assert_int_equal(kt_os_run(open_up, NULL), 0);
    assert_false(kt_os_private_folder(folder));
    kt_err err;
    const char *file = kt_path_join(arena, here->folder, "file");
    assert_int_equal(kt_os_write_atomic(file, "", 0, &err), KT_OK);
    assert_false(kt_os_private_folder(file));
}

static void path_pieces(void **state) {
    (void)state;
    kt_arena a = {0};
    assert_string_equal(kt_path_join(&a, "x", "y"), "x/y");
    assert_string_equal(kt_path_join(&a, "x/", "y"), "x/y");
    assert_string_equal(kt_path_join(&a, "", "y"), "y");
    assert_string_equal(kt_path_join(&a, "x", "/y"), "/y");
    assert_string_equal(kt_path_folder(&a, "a/b/c"), "a/b");
    assert_string_equal(kt_path_folder(&a, "c"), ".");
    assert_string_equal(kt_path_folder(&a, "/c"), "/");
    assert_string_equal(kt_path_name("a/b/c"), "c");
    assert_string_equal(kt_path_name("c"), "c");
    assert_true(kt_path_is_absolute(kt_os_absolute(&a, "x")));
    assert_string_equal(kt_os_absolute(&a, "./x"), kt_os_absolute(&a, "x"));
    kt_arena_deinit(&a);
}

// ---- programs, libraries

static void run_gives_output_and_exit_code(void **state) {
    (void)state;
    kt_buf out = {0};
    const char *argv[] = {"sh", "-c", "echo \"$1\"; echo bad >&2; exit 7", "sh", "a b\"\\", NULL};
    assert_int_equal(kt_os_run(argv, &out), 7);
    assert_string_equal(out.at, "a b\"\\\nbad\n");
    kt_buf_deinit(&out);
    const char *none[] = {"kotaro-no-such-program", NULL};
    assert_int_equal(kt_os_run(none, NULL), -1);
}

static void library_says_why(void **state) {
    (void)state;
    kt_buf why = {0};
    assert_null(kt_os_library_open("./no-such-library.so", &why));
    assert_non_null(strstr(why.at, "no-such-library.so"));
    kt_buf_deinit(&why);
    kt_os_library_close(NULL);
}

// ---- threads

enum { POOL_N = 10007 };

typedef struct cover {
    atomic_int hits[POOL_N];
    atomic_int n_short; // ranges shorter than the grain, the last excepted
    int64_t n, grain;
} cover;

static void cover_range(void *ctx, int64_t begin, int64_t end) {
    cover *c = ctx;
    if (begin < 0 || end > c->n || begin >= end) abort();
    if (end - begin < c->grain && end != c->n) atomic_fetch_add(&c->n_short, 1);
    for (int64_t i = begin; i < end; i++) atomic_fetch_add(&c->hits[i], 1);
}

static void check_cover(kt_pool *pool, int64_t n, int64_t grain) {
    static cover c;
    memset(&c, 0, sizeof c);
    c.n = n;
    c.grain = grain;
    kt_pool_for(pool, n, grain, cover_range, &c);
    for (int64_t i = 0; i < POOL_N; i++) assert_int_equal(atomic_load(&c.hits[i]), i < n ? 1 : 0);
    assert_int_equal(atomic_load(&c.n_short), 0);
}

static void pool_covers_every_index_once(void **state) {
    (void)state;
    for (int threads = 0; threads <= 9; threads += 3) {
        kt_pool *pool = kt_pool_open(threads);
        if (threads > 0) assert_int_equal(kt_pool_threads(pool), threads);
        static const int64_t sizes[] = {0, 1, 2, 7, 64, 1000, POOL_N};
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            check_cover(pool, sizes[i], 1);
            check_cover(pool, sizes[i], 100);
        }
        kt_pool_close(pool);
    }
    check_cover(NULL, 50, 1);
    kt_pool_close(NULL);
}

static void add_one(void *ctx, int64_t begin, int64_t end) {
    atomic_fetch_add((atomic_llong *)ctx, (long long)(end - begin));
}

// Many short loops in a row: workers that are late for one must not touch the next.
static void pool_runs_short_loops_in_a_row(void **state) {
    (void)state;
    kt_pool *pool = kt_pool_open(4);
    for (int i = 0; i < 3000; i++) {
        atomic_llong sum = 0;
        kt_pool_for(pool, 5 + i % 11, 1, add_one, &sum);
        assert_int_equal(atomic_load(&sum), 5 + i % 11);
    }
    kt_pool_close(pool);
}

typedef struct meet {
    kt_os_mutex *mutex;
    kt_os_cond *cond;
    int turn;
} meet;

static void answer(void *ctx) {
    meet *m = ctx;
    kt_os_mutex_lock(m->mutex);
    while (m->turn != 1) kt_os_cond_wait(m->cond, m->mutex);
    m->turn = 2;
    kt_os_cond_broadcast(m->cond);
    kt_os_mutex_unlock(m->mutex);
}

static void threads_wait_for_each_other(void **state) {
    (void)state;
    meet m = {kt_os_mutex_create(), kt_os_cond_create(), 0};
    kt_os_thread *thread = kt_os_thread_start(answer, &m, 1);
    assert_non_null(thread);
    kt_os_mutex_lock(m.mutex);
    m.turn = 1;
    kt_os_cond_broadcast(m.cond);
    while (m.turn != 2) kt_os_cond_wait(m.cond, m.mutex);
    kt_os_mutex_unlock(m.mutex);
    kt_os_thread_join(thread);
    kt_os_cond_free(m.cond);
    kt_os_mutex_free(m.mutex);
}

static void time_goes_on(void **state) {
    (void)state;
    double start = kt_os_now_ms();
    kt_os_sleep_us(3000);
    assert_true(kt_os_now_ms() - start >= 2.9);
    assert_true(kt_os_cpu_count() >= 1);
    assert_true(kt_os_memory_bytes() > 64 << 20);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(status_message_and_notes),
        cmocka_unit_test(status_cuts_between_characters),
        cmocka_unit_test(arena_marks_release_what_came_after),
        cmocka_unit_test(arena_empty_and_large),
        cmocka_unit_test(str_views),
        cmocka_unit_test(str_match_stars),
        cmocka_unit_test(str_to_i64),
        cmocka_unit_test(str_to_f64),
        cmocka_unit_test(str_to_bytes),
        cmocka_unit_test(str_checked_arithmetic),
        cmocka_unit_test(str_utf8),
        cmocka_unit_test(str_distance),
        cmocka_unit_test(str_suggestions),
        cmocka_unit_test(buf_grows),
        cmocka_unit_test(table_finds_and_replaces),
        cmocka_unit_test(f16_widens_every_value),
        cmocka_unit_test(f16_narrows_to_nearest_even),
        cmocka_unit_test(bf16_rounds_to_nearest_even),
        cmocka_unit_test(dtype_names),
        cmocka_unit_test(hash_vectors),
        cmocka_unit_test(hash_fields_do_not_run_together),
        cmocka_unit_test_setup_teardown(
            file_write_is_atomic_and_read_back, enter_scratch, leave_scratch),
        cmocka_unit_test_setup_teardown(
            file_write_failure_leaves_nothing, enter_scratch, leave_scratch),
        cmocka_unit_test_setup_teardown(file_read_refuses, enter_scratch, leave_scratch),
        cmocka_unit_test_setup_teardown(list_is_sorted, enter_scratch, leave_scratch),
        cmocka_unit_test_setup_teardown(
            private_folder_refuses_what_others_can_write, enter_scratch, leave_scratch),
        cmocka_unit_test(path_pieces),
        cmocka_unit_test(run_gives_output_and_exit_code),
        cmocka_unit_test(library_says_why),
        cmocka_unit_test(pool_covers_every_index_once),
        cmocka_unit_test(pool_runs_short_loops_in_a_row),
        cmocka_unit_test(threads_wait_for_each_other),
        cmocka_unit_test(time_goes_on),
    };
    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
