// .npy files: what NumPy writes is read, what is written is what NumPy writes, and every hostile
// header is refused with words that help.
#include "loader/npy.h"
#include "runtime/base/f16.h"
#include "runtime/base/file.h"
#include "tests/util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static kt_arena arena;

// A file of version `version` with this dictionary and `data_bytes` zeros behind it.
static kt_status parse(
    int version, const char *dictionary, int64_t data_bytes, kt_npy_head *out, kt_err *err) {
    size_t n = strlen(dictionary), fixed = version == 1 ? 10 : 12;
    char *file = kt_arena_alloc(&arena, fixed + n);
    static const char magic[6] = {'\x93', 'N', 'U', 'M', 'P', 'Y'};
    memcpy(file, magic, sizeof magic);
    file[6] = (char)version;
    file[8] = (char)(n & 255);
    file[9] = (char)(n >> 8 & 255);
    for (size_t i = 0; i < n; i++) file[fixed + i] = dictionary[i];
    return kt_npy_parse(
        (kt_str){file, fixed + n}, (int64_t)(fixed + n) + data_bytes, "a.npy", out, err);
}

#define DICT(descr, order, shape)                                                                  \
    "{'descr': '" descr "', 'fortran_order': " order ", 'shape': " shape ", }  \n"

static void npy_reads_what_numpy_writes(void **state) {
    (void)state;
    static const struct {
        const char *text;
        kt_dtype dtype;
        int rank;
        int64_t shape[3];
        int64_t bytes;
    } cases[] = {
        {DICT("<f4", "False", "(3, 4)"), KT_DTYPE_F32, 2, {3, 4}, 48},
        {DICT("<f2", "False", "(5,)"), KT_DTYPE_F16, 1, {5}, 10},
        {DICT("<i8", "False", "()"), KT_DTYPE_I64, 0, {0}, 8},
        {DICT("|u1", "False", "(2, 0, 7)"), KT_DTYPE_U8, 3, {2, 0, 7}, 0},
        {DICT("|i1", "False", "(1,)"), KT_DTYPE_I8, 1, {1}, 1},
        {DICT("<u4", "False", "(2,)"), KT_DTYPE_U32, 1, {2}, 8},
        {"{\"shape\":(7,),\"fortran_order\":False,\"descr\":\"<i4\"}", KT_DTYPE_I32, 1, {7}, 28},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (int version = 1; version <= 2; version++) {
            kt_npy_head head;
            kt_err err = {0};
            if (parse(version, cases[i].text, cases[i].bytes, &head, &err) != KT_OK)
                fail_msg("%s: %s", cases[i].text, err.text);
            assert_int_equal(head.dtype, cases[i].dtype);
            assert_int_equal(head.rank, cases[i].rank);
            for (int a = 0; a < head.rank; a++) assert_int_equal(head.shape[a], cases[i].shape[a]);
            assert_int_equal(head.data_bytes, cases[i].bytes);
            assert_int_equal(head.data_at, (version == 1 ? 10 : 12) + strlen(cases[i].text));
        }
}

static void npy_refuses_what_it_cannot_read(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int64_t bytes;
        const char *message;
    } cases[] = {
        {DICT(">f4", "False", "(3,)"), 12, "little-endian"},
        {DICT("=i4", "False", "(3,)"), 12, "little-endian"},
        {DICT("<f8", "False", "(3,)"), 24, "'<f8' are not read; save float32"},
        {DICT("<c8", "False", "(3,)"), 24, "not read"},
        {DICT("|O", "False", "(3,)"), 24, "not read"},
        {DICT("", "False", "(3,)"), 0, "not read"},
        {DICT("<f4", "True", "(3, 4)"), 48, "ascontiguousarray"},
        {DICT("<f4", "true", "(3, 4)"), 48, "True or False"},
        {DICT("<f4", "False", "(9223372036854775807, 9223372036854775807)"), 0, "larger than"},
        {DICT("<f4", "False", "(4611686018427387904,)"), 0, "larger than"},
        {DICT("<f4", "False", "(99999999999999999999,)"), 0, "too large"},
        {DICT("<f4", "False", "(1099511627776,)"), 8, "cut short"},
        {DICT("<f4", "False", "(-1,)"), 0, "size is missing"},
        {DICT("<f4", "False", "(3, 4)"), 47, "cut short"},
        {DICT("<f4", "False", "(3, 4)"), 49, "damaged"},
        {DICT("<f4", "False", "(1, 1, 1, 1, 1, 1, 1)"), 4, "more than 6 axes"},
        {DICT("<f4", "False", "(3, 4"), 48, "missing"},
        {DICT("<f4", "False", "(3 4)"), 48, "',' is missing"},
        {DICT("<f4", "False", "[3]"), 12, "'(' is missing"},
        {"{'descr': [('x', '<f4')], 'fortran_order': False, 'shape': (3,)}", 12, "named fields"},
        {"{'descr': '<f4', 'fortran_order': False}", 12, "lacks 'shape'"},
        {"{'descr': '<f4', 'descr': '<f4', 'shape': (3,)}", 12, "twice"},
        {"{'descr': '<f4', 'what': 1}", 12, "unknown key"},
        {"{'descr: 3", 12, "never ends"},
        {"{'descr' '<f4'}", 12, "':' is missing"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (3,)} x", 12, "follows"},
        {"", 12, "'{' is missing"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        kt_npy_head head;
        kt_err err = {0};
        assert_int_equal(parse(1, cases[i].text, cases[i].bytes, &head, &err), KT_EFORMAT);
        assert_int_equal(strncmp(err.text, "a.npy: ", 7), 0);
        if (!strstr(err.text, cases[i].message))
            fail_msg("%s: '%s' lacks '%s'", cases[i].text, err.text, cases[i].message);
    }
}

// What comes before the dictionary, byte for byte.
static void npy_refuses_other_files(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
        const char *message;
    } cases[] = {
        {"", 0, "no .npy file"},
        {"PK\x03\x04 a zip archive of arrays", 30, "no .npy file"},
        {"\x93NUMPX\x01\x00\x00\x00", 10, "no .npy file"},
        {"\x93NUMPY\x01\x00", 8, "no .npy file"},
        {"\x93NUMPY\x03\x00\x00\x00\x00\x00", 12, "version 3"},
        {"\x93NUMPY\x00\x00\x00\x00", 10, "version 0"},
        {"\x93NUMPY\x02\x00\x10\x00", 10, "cut short"},
        {"\x93NUMPY\x01\x00\xff\xff{'descr'", 18, "cut short"},
        {"\x93NUMPY\x02\x00\xff\xff\xff\x7f{'descr'", 20, "claims 2147483647 bytes"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        kt_npy_head head;
        kt_err err = {0};
        kt_str start = {cases[i].bytes, cases[i].n};
        assert_int_equal(kt_npy_parse(start, (int64_t)cases[i].n, "b", &head, &err), KT_EFORMAT);
        if (!strstr(err.text, cases[i].message))
            fail_msg("'%s' lacks '%s'", err.text, cases[i].message);
    }
}

// Every file that is one byte shorter, and every one with one byte changed, is read or refused.
static void npy_survives_any_damage(void **state) {
    (void)state;
    static const char good[] =
        "\x93NUMPY\x01\x00\x40\x00{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }  "
        "    \n";
    size_t n = sizeof good - 1;
    int refused = 0;
    for (size_t i = 0; i < n; i++)
        for (int c = 0; c < 256; c++) {
            char *file = kt_arena_copy(&arena, good, n); // so that sanitizers see its end
            kt_npy_head head;
            kt_err err = {0};
            file[i] = (char)c;
            kt_status status = kt_npy_parse((kt_str){file, n}, (int64_t)n + 48, "c", &head, &err);
            assert_true(status == KT_OK || (status == KT_EFORMAT && err.text[0]));
            refused += status != KT_OK;
        }
    assert_true(refused > 10000);
    for (size_t i = 0; i < n; i++) {
        kt_npy_head head;
        kt_err err = {0};
        char *file = kt_arena_copy(&arena, good, i);
        assert_int_equal(kt_npy_parse((kt_str){file, i}, (int64_t)i, "d", &head, &err), KT_EFORMAT);
    }
}

static void npy_writes_what_it_reads(void **state) {
    (void)state;
    const char *folder = test_folder(&arena), *path = kt_path_join(&arena, folder, "x.npy");
    static const kt_dtype dtypes[] = {KT_DTYPE_F32, KT_DTYPE_F16, KT_DTYPE_I64, KT_DTYPE_I32,
        KT_DTYPE_I16, KT_DTYPE_I8, KT_DTYPE_U32, KT_DTYPE_U16, KT_DTYPE_U8};
    static const int64_t shapes[][3] = {{2, 3, 4}, {24, 0, 0}, {1, 24, 0}, {0, 0, 0}};
    static const int ranks[] = {3, 1, 2, 1};
    unsigned char data[24 * 8], back[24 * 8];
    for (size_t i = 0; i < sizeof data; i++) data[i] = (unsigned char)(i * 37 % 120);
    for (size_t d = 0; d < sizeof dtypes / sizeof dtypes[0]; d++)
        for (int s = 0; s < 4; s++) {
            kt_npy npy;
            kt_err err = {0};
            assert_int_equal(kt_npy_write(path, dtypes[d], ranks[s], shapes[s], data, &err), KT_OK);
            if (kt_npy_open(path, &npy, &err) != KT_OK) fail_msg("%s", err.text);
            assert_int_equal(npy.head.dtype, dtypes[d]);
            assert_int_equal(npy.head.rank, ranks[s]);
            assert_int_equal(npy.head.data_at % 64, 0);
            int64_t n = s == 3 ? 0 : 24, word = kt_dtype_bytes(dtypes[d]);
            assert_int_equal(npy.head.n, n);
            assert_int_equal(kt_npy_read(&npy, 0, n, back, &err), KT_OK);
            assert_memory_equal(back, data, (size_t)(n * word));
            if (n) assert_int_equal(kt_npy_read(&npy, 5, 3, back, &err), KT_OK);
            if (n) assert_memory_equal(back, data + 5 * word, (size_t)(3 * word));
            kt_npy_close(&npy);
        }
    test_remove(folder);
}

// The bytes that numpy.save writes for arange(6, dtype=float32).reshape(2, 3).
static void npy_writes_what_numpy_writes(void **state) {
    (void)state;
    const char *folder = test_folder(&arena), *path = kt_path_join(&arena, folder, "x.npy");
    static const float data[6] = {0, 1, 2, 3, 4, 5};
    static const int64_t shape[2] = {2, 3};
    kt_err err = {0};
    kt_str text;
    assert_int_equal(kt_npy_write(path, KT_DTYPE_F32, 2, shape, data, &err), KT_OK);
    assert_int_equal(kt_file_read(&arena, path, 1 << 20, &text, &err), KT_OK);
    assert_int_equal(text.n, 128 + sizeof data);
    static const char start[] =
        "\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";
    assert_memory_equal(text.at, start, sizeof start - 1);
    for (size_t i = sizeof start - 1; i < 127; i++) assert_int_equal(text.at[i], ' ');
    assert_int_equal(text.at[127], '\n');
    assert_memory_equal(text.at + 128, data, sizeof data);
    test_remove(folder);
}

static void npy_numbers_are_numbers(void **state) {
    (void)state;
    const int8_t i8[2] = {-128, 127};
    const uint32_t u32[2] = {0, 4294967295U};
    const uint16_t f16[3] = {kt_f32_to_f16(-0.5F), kt_f32_to_f16(65504), 0x7c00};
    double out[3];
    kt_npy_to_f64(KT_DTYPE_I8, i8, 2, out);
    assert_true(out[0] == -128 && out[1] == 127);
    kt_npy_to_f64(KT_DTYPE_U32, u32, 2, out);
    assert_true(out[0] == 0 && out[1] == 4294967295.0);
    kt_npy_to_f64(KT_DTYPE_F16, f16, 3, out);
    assert_true(out[0] == -0.5 && out[1] == 65504 && out[2] > 1e300);
    assert_false(kt_npy_holds(KT_DTYPE_BF16));
    assert_true(kt_npy_holds(KT_DTYPE_F16));
}

// Read in pieces, a large file is the same numbers.
static void npy_reads_in_pieces(void **state) {
    (void)state;
    const char *folder = test_folder(&arena), *path = kt_path_join(&arena, folder, "x.npy");
    enum { N = 40000 };
    int32_t *data = KT_NEW_ARRAY(&arena, int32_t, N);
    double *out = KT_NEW_ARRAY(&arena, double, N);
    for (int i = 0; i < N; i++) data[i] = i * 7 - 3;
    const int64_t shape[1] = {N};
    kt_err err = {0};
    kt_npy npy;
    assert_int_equal(kt_npy_write(path, KT_DTYPE_I32, 1, shape, data, &err), KT_OK);
    assert_int_equal(kt_npy_open(path, &npy, &err), KT_OK);
    assert_int_equal(kt_npy_read_f64(&npy, 11, N - 11, out, &err), KT_OK);
    for (int i = 0; i < N - 11; i++) assert_true(out[i] == (i + 11) * 7 - 3);
    kt_npy_close(&npy);
    test_remove(folder);
}

static void npy_names_files_it_cannot_reach(void **state) {
    (void)state;
    const char *folder = test_folder(&arena);
    kt_npy npy;
    kt_err err = {0};
    const char *path = kt_path_join(&arena, folder, "none.npy");
    assert_int_equal(kt_npy_open(path, &npy, &err), KT_EFILE);
    assert_non_null(strstr(err.text, "none.npy"));
    path = kt_path_join(&arena, folder, "no/folder/x.npy");
    assert_int_equal(kt_npy_write(path, KT_DTYPE_U8, 0, NULL, "x", &err), KT_EFILE);
    assert_non_null(strstr(err.text, "no/folder/x.npy"));
    assert_int_equal(kt_npy_open(folder, &npy, &err), KT_EFILE);
    test_remove(folder);
}

static int teardown(void **state) {
    (void)state;
    kt_arena_deinit(&arena);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(npy_reads_what_numpy_writes),
        cmocka_unit_test(npy_refuses_what_it_cannot_read),
        cmocka_unit_test(npy_refuses_other_files),
        cmocka_unit_test(npy_survives_any_damage),
        cmocka_unit_test(npy_writes_what_it_reads),
        cmocka_unit_test(npy_writes_what_numpy_writes),
        cmocka_unit_test(npy_numbers_are_numbers),
        cmocka_unit_test(npy_reads_in_pieces),
        cmocka_unit_test(npy_names_files_it_cannot_reach),
    };
    return cmocka_run_group_tests(tests, NULL, teardown);
}
