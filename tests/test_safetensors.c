// Checkpoints: what is read right, and every kind of damage with what is said about it.
#include "loader/checkpoint.h"
#include "runtime/base/file.h"
#include "tests/util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

// A folder of its own for each test, emptied at the end.
static kt_arena arena;
static const char *folder;

static int make_folder(void **state) {
    (void)state;
    arena = (kt_arena){0};
    folder = test_folder(&arena);
    return 0;
}

static int empty_folder(void **state) {
    (void)state;
    test_remove(folder);
    kt_arena_deinit(&arena);
    return 0;
}

// A file: length, header, then data_bytes bytes 0, 1, 2, ...
static void put(const char *name, const char *header, int data_bytes) {
    kt_buf file = {0};
    size_t n = strlen(header);
    for (int i = 0; i < 8; i++) {
        char byte = (char)(n >> (8 * i) & 0xFF);
        kt_buf_add(&file, &byte, 1);
    }
    kt_buf_add(&file, header, n);
    for (int i = 0; i < data_bytes; i++) {
        char byte = (char)i;
        kt_buf_add(&file, &byte, 1);
    }
    test_write(kt_path_join(&arena, folder, name), file.at, file.n);
    kt_buf_deinit(&file);
}

static kt_checkpoint open_good(void) {
    kt_checkpoint checkpoint;
    kt_err err = {0};
    kt_status status =
        kt_checkpoint_open(&arena, folder, KT_STR("*.safetensors"), &checkpoint, &err);
    if (status != KT_OK) fail_msg("%s", err.text);
    return checkpoint;
}

static void expect_refusal(kt_status code, const char *message) {
    kt_checkpoint checkpoint;
    kt_err err = {0};
    kt_status status =
        kt_checkpoint_open(&arena, folder, KT_STR("*.safetensors"), &checkpoint, &err);
    if (status == KT_OK) fail_msg("accepted, expected '%s'", message);
    assert_int_equal(status, code);
    if (strstr(err.text, message) == NULL) fail_msg("'%s' is not in '%s'", message, err.text);
    assert_int_equal(checkpoint.n_files, 0);
}

// ---- good files

static void tensors_are_found_and_read(void **state) {
    (void)state;
    put("a.safetensors",
        "{\"__metadata__\":{\"format\":\"pt\"},\"w.b\":{\"dtype\":\"F16\",\"shape\":[2,3],"
        "\"data_offsets\":[4,16]},\"w.a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"
        "\"empty\":{\"dtype\":\"BF16\",\"shape\":[4,0],\"data_offsets\":[16,16]},"
        "\"mask\":{\"dtype\":\"BOOL\",\"shape\":[2],\"data_offsets\":[16,18]}}   ",
        18);
    kt_checkpoint in = open_good();
    assert_int_equal(in.n_stored, 4);
    assert_int_equal(in.bytes, 18);
    const kt_stored *b = kt_checkpoint_find(&in, KT_STR("w.b"));
    assert_non_null(b);
    assert_int_equal(b->dtype, KT_DTYPE_F16);
    assert_int_equal(b->rank, 2);
    assert_int_equal(b->shape[0], 2);
    assert_int_equal(b->shape[1], 3);
    assert_int_equal(b->bytes, 12);
    assert_true(kt_str_is(b->type, "F16"));
    assert_null(kt_checkpoint_find(&in, KT_STR("w")));
    assert_null(kt_checkpoint_find(&in, KT_STR("w.c")));
    assert_int_equal(kt_checkpoint_find(&in, KT_STR("mask"))->dtype, KT_DTYPE_U8);
    assert_int_equal(kt_checkpoint_find(&in, KT_STR("empty"))->bytes, 0);
    assert_int_equal(kt_checkpoint_find(&in, KT_STR("w.a"))->rank, 0);
    unsigned char bytes[12];
    kt_err err = {0};
    assert_int_equal(kt_checkpoint_read(&in, b, 0, bytes, 12, &err), KT_OK);
    for (int i = 0; i < 12; i++) assert_int_equal(bytes[i], 4 + i);
    assert_int_equal(kt_checkpoint_read(&in, b, 10, bytes, 2, &err), KT_OK);
    assert_int_equal(bytes[0], 14);
    assert_int_equal(kt_checkpoint_read(&in, b, 10, bytes, 3, &err), KT_EFORMAT);
    assert_int_equal(kt_checkpoint_read(&in, b, -1, bytes, 1, &err), KT_EFORMAT);
    assert_int_equal(kt_checkpoint_read(&in, b, 13, bytes, 0, &err), KT_EFORMAT);
    kt_checkpoint_close(&in);
}

static void every_dtype_is_known(void **state) {
    (void)state;
    const struct {
        const char *name;
        kt_dtype dtype;
    } rows[] = {{"F32", KT_DTYPE_F32}, {"F16", KT_DTYPE_F16}, {"BF16", KT_DTYPE_BF16},
        {"F8_E4M3", KT_DTYPE_F8E4M3}, {"F8_E5M2", KT_DTYPE_F8E5M2}, {"I64", KT_DTYPE_I64},
        {"I32", KT_DTYPE_I32}, {"I16", KT_DTYPE_I16}, {"I8", KT_DTYPE_I8}, {"U32", KT_DTYPE_U32},
        {"U16", KT_DTYPE_U16}, {"U8", KT_DTYPE_U8}, {"BOOL", KT_DTYPE_U8}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        int bytes = 3 * kt_dtype_bytes(rows[i].dtype);
        put("a.safetensors",
            kt_arena_printf(&arena,
                "{\"w\":{\"dtype\":\"%s\",\"shape\":[3],\"data_offsets\":[0,%d]}}", rows[i].name,
                bytes),
            bytes);
        kt_checkpoint in = open_good();
        assert_int_equal(in.stored[0].dtype, rows[i].dtype);
        kt_checkpoint_close(&in);
    }
}

static void a_file_without_tensors_is_fine(void **state) {
    (void)state;
    put("a.safetensors", "{}", 0);
    kt_checkpoint in = open_good();
    assert_int_equal(in.n_stored, 0);
    kt_checkpoint_close(&in);
}

// ---- damage

#define T(dtype, shape, offsets)                                                                   \
    "{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets "}"
#define W(entry) "{\"w\":" entry "}"

static void damaged_headers_are_refused(void **state) {
    (void)state;
    const struct {
        const char *header;
        int data;
        const char *message;
    } cases[] = {
        {"", 0, "does not begin with '{'"},
        {"[]", 0, "does not begin with '{'"},
        {" {}", 0, "does not begin with '{'"},
        {"{", 0, "header:1:1: "},
        {"{\"w\":}", 0, "header:1:"},
        {"{} x", 0, "header:1:"},
        {"{\"w\":[]}", 0, "tensor 'w' is a list, expected an object"},
        {"{\"\":" T("\"F32\"", "[1]", "[0,4]") "}", 4, "a tensor without a name"},
        {"{\"a\\nb\":" T("\"F32\"", "[1]", "[0,4]") "}", 4, "control character 0x0a at byte 1"},
        {W("{\"shape\":[1],\"data_offsets\":[0,4]}"), 4, "'dtype' is nothing"},
        {W(T("7", "[1]", "[0,4]")), 4, "'dtype' is the number 7"},
        {W(T("\"F64\"", "[1]", "[0,8]")), 8,
            "has dtype the text 'F64', which Kotaro does not read"},
        {W(T("\"Q4_K\"", "[1]", "[0,8]")), 8, "'Q4_K'"},
        {W(T("\"f32\"", "[1]", "[0,4]")), 4, "'f32'"},
        {W("{\"dtype\":\"F32\",\"data_offsets\":[0,4]}"), 4, "'shape' is nothing"},
        {W(T("\"F32\"", "1", "[0,4]")), 4, "'shape' is the number 1"},
        {W(T("\"F32\"", "[-1]", "[0,4]")), 4, "dimension 0 of 'shape' is the number -1"},
        {W(T("\"F32\"", "[1.0]", "[0,4]")), 4, "dimension 0 of 'shape' is the number 1"},
        {W(T("\"F32\"", "[1,\"2\"]", "[0,4]")), 4, "dimension 1 of 'shape' is the text '2'"},
        {W(T("\"F32\"", "[1,1,1,1,1,1,1]", "[0,4]")), 4, "has 7 dimensions, at most 6"},
        {W(T("\"F32\"", "[4294967296,4294967296]", "[0,4]")), 4, "more than 2^63 bytes"},
        {W(T("\"F32\"", "[9223372036854775807]", "[0,4]")), 4, "more than 2^63 bytes"},
        {W("{\"dtype\":\"F32\",\"shape\":[1]}"), 4, "'data_offsets' is nothing"},
        {W(T("\"F32\"", "[1]", "[0]")), 4, "'data_offsets' is a list"},
        {W(T("\"F32\"", "[1]", "[0,4,8]")), 4, "'data_offsets' is a list"},
        {W(T("\"F32\"", "[1]", "[0,\"4\"]")), 4, "'data_offsets' is a list"},
        {W(T("\"F32\"", "[1]", "[-4,0]")), 4, "from byte -4 to 0, which is no range"},
        {W(T("\"F32\"", "[1]", "[4,0]")), 4, "from byte 4 to 0, which is no range"},
        {W(T("\"F32\"", "[1]", "[0,4]")), 3, "ends at byte 4 of the data, but the file ends at 3"},
        {W(T("\"F32\"", "[2]", "[0,4]")), 4,
            "has 4 bytes in the file, but its shape and F32 make 8"},
        {W(T("\"F32\"", "[0]", "[0,4]")), 4,
            "has 4 bytes in the file, but its shape and F32 make 0"},
        {W(T("\"F32\"", "[1]", "[0,9223372036854775807]")), 4, "ends at byte 9223372036854775807"},
        {W(T("\"F32\"", "[1]", "[0,9223372036854775808]")), 4, "too big integer"},
        {W(T("\"F32\"", "[1]", "[0,4],\"x\":1")), 4, "the unknown member 'x'"},
        {"{\"w\":" T("\"U8\"", "[4]", "[0,4]") ",\"w\":" T("\"U8\"", "[4]", "[4,8]") "}", 8,
            "duplicate"},
        {"{\"v\":" T("\"U8\"", "[4]", "[0,4]") ",\"w\":" T("\"U8\"", "[4]", "[2,6]") "}", 6,
            "tensors 'v' and 'w' overlap: one ends at byte 4, the other begins at 2"},
        {"{\"v\":" T("\"U8\"", "[4]", "[0,4]") ",\"w\":" T("\"U8\"", "[4]", "[0,4]") "}", 4,
            "overlap"},
        {"{\"v\":" T("\"U8\"", "[4]", "[0,4]") ",\"e\":" T("\"U8\"", "[0]", "[2,2]") "}", 4,
            "overlap"},
        {"{\"v\":" T("\"U8\"", "[4]", "[0,4]") ",\"w\":" T("\"U8\"", "[4]", "[6,10]") "}", 10,
            "bytes 4 to 6 before tensor 'w' belong to no tensor"},
        {W(T("\"U8\"", "[4]", "[1,5]")), 5, "bytes 0 to 1 before tensor 'w' belong to no tensor"},
        {W(T("\"U8\"", "[4]", "[0,4]")), 5, "the tensors end at byte 4 of the data, the file at 5"},
        {"{\"__metadata__\":[]}", 0, "'__metadata__' is a list"},
        {"{\"__metadata__\":{\"a\":1}}", 0, "'a' in '__metadata__' is the number 1"},
        {"{\"w\":{\"a\":[[[[[[[[1]]]]]]]]}}", 0, "nested deeper than 8"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        put("a.safetensors", cases[i].header, cases[i].data);
        expect_refusal(KT_EFORMAT, cases[i].message);
        expect_refusal(KT_EFORMAT, "a.safetensors");
    }
}

static void damaged_lengths_are_refused(void **state) {
    (void)state;
    test_write(kt_path_join(&arena, folder, "a.safetensors"), "", 0);
    expect_refusal(KT_EFORMAT, "the file has 0 bytes, a safetensors file has at least 10");
    test_write(kt_path_join(&arena, folder, "a.safetensors"), "\x02\0\0\0\0\0\0", 7);
    expect_refusal(KT_EFORMAT, "the file has 7 bytes");
    test_write(kt_path_join(&arena, folder, "a.safetensors"), "\x03\0\0\0\0\0\0\0{}", 10);
    expect_refusal(KT_EFORMAT, "said to have 3 bytes, but the file has 10 in all");
    test_write(
        kt_path_join(&arena, folder, "a.safetensors"), "\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF{}", 10);
    expect_refusal(KT_EFORMAT, "said to have 18446744073709551615 bytes, at most 100000000");
    test_write(kt_path_join(&arena, folder, "a.safetensors"), "\0\0\0\0\0\0\0\x80{}", 10);
    expect_refusal(KT_EFORMAT, "said to have 9223372036854775808 bytes");
    test_write(kt_path_join(&arena, folder, "a.safetensors"), "\0\0\0\0\0\0\0\0{}", 10);
    expect_refusal(KT_EFORMAT, "does not begin with '{'");
    test_write(kt_path_join(&arena, folder, "a.safetensors"), "<!DOCTYPE html><html>", 21);
    expect_refusal(KT_EFORMAT, "download it again");
}

static void a_long_name_is_refused(void **state) {
    (void)state;
    char *name = kt_arena_alloc(&arena, 2000);
    memset(name, 'n', 1500);
    put("a.safetensors", kt_arena_printf(&arena, "{\"%s\":" T("\"U8\"", "[1]", "[0,1]") "}", name),
        1);
    expect_refusal(KT_EFORMAT, "has 1500 bytes, at most 1024");
}

// ---- several files, index

#define ONE(name) "{\"" name "\":" T("\"U8\"", "[2]", "[0,2]") "}"
#define INDEX     "model.safetensors.index.json"

static void put_text(const char *name, const char *text) {
    test_write(kt_path_join(&arena, folder, name), text, strlen(text));
}

static void shards_are_read_together(void **state) {
    (void)state;
    put("m-1.safetensors", ONE("a"), 2);
    put("m-2.safetensors", ONE("b"), 2);
    kt_checkpoint in = open_good();
    assert_int_equal(in.n_files, 2);
    assert_int_equal(in.n_stored, 2);
    kt_checkpoint_close(&in);
    put("other.safetensors", ONE("a"), 2); // not named by the index
    put_text(INDEX, "{\"metadata\":{\"total_size\":4},\"weight_map\":{\"b\":\"m-2.safetensors\","
                    "\"a\":\"m-1.safetensors\"}}");
    in = open_good();
    assert_int_equal(in.n_files, 2);
    assert_int_equal(in.n_stored, 2);
    const kt_stored *b = kt_checkpoint_find(&in, KT_STR("b"));
    assert_true(kt_str_ends(kt_str_from(in.files[b->file].path), KT_STR("m-2.safetensors")));
    kt_checkpoint_close(&in);
    kt_err err = {0};
    assert_int_equal(
        kt_checkpoint_open(&arena, folder, KT_STR("other.safetensors"), &in, &err), KT_OK);
    assert_int_equal(in.n_files, 1); // a pattern that names one file means that file
    kt_checkpoint_close(&in);
}

static void indexes_that_do_not_fit_are_refused(void **state) {
    (void)state;
    put("m-1.safetensors", ONE("a"), 2);
    put("m-2.safetensors", ONE("b"), 2);
    const struct {
        const char *index;
        kt_status status;
        const char *message;
    } cases[] = {
        {"{\"weight_map\":{\"a\":\"m-1.safetensors\",\"b\":\"m-3.safetensors\"}}", KT_EFILE,
            "m-3.safetensors"},
        {"{\"weight_map\":{\"a\":\"m-1.safetensors\",\"b\":\"m-3.safetensors\"}}", KT_EFILE,
            "names this file"},
        {"{\"weight_map\":{\"a\":\"m-1.safetensors\",\"c\":\"m-1.safetensors\"}}", KT_EFORMAT,
            "tensor 'c' is in file 'm-1.safetensors', but it is not"},
        {"{\"weight_map\":{\"c\":\"m-1.safetensors\"}}", KT_EFORMAT,
            "holds the tensor 'a', which the index does not name"},
        {"{\"weight_map\":{\"a\":\"m-2.safetensors\",\"b\":\"m-1.safetensors\"}}", KT_EFORMAT,
            "but the index says"},
        {"{\"weight_map\":{\"a\":\"../m-1.safetensors\"}}", KT_EFORMAT,
            "expected the name of a file in this folder"},
        {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", KT_EFORMAT, "expected the name of a file"},
        {"{\"weight_map\":{\"a\":\"c:m\"}}", KT_EFORMAT, "expected the name of a file"},
        {"{\"weight_map\":{\"a\":1}}", KT_EFORMAT, "is the number 1"},
        {"{\"weight_map\":{\"a\":\"m.bin\"}}", KT_EFORMAT, "of no kind that Kotaro reads"},
        {"{\"weight_map\":[]}", KT_EFORMAT, "'weight_map' is a list"},
        {"{\"weight_map\":{}}", KT_EFILE, "no file of"},
        {"{}", KT_EFORMAT, "'weight_map' is nothing"},
        {"[", KT_EFORMAT, INDEX ":1:"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        put_text(INDEX, cases[i].index);
        expect_refusal(cases[i].status, cases[i].message);
    }
}

static void a_tensor_in_two_files_is_refused(void **state) {
    (void)state;
    put("x.safetensors", ONE("a"), 2);
    put("y.safetensors", ONE("a"), 2);
    expect_refusal(KT_EFORMAT, "tensor 'a' is in both");
    expect_refusal(KT_EFORMAT, "y.safetensors");
}

static void missing_files_are_named(void **state) {
    (void)state;
    put_text("config.json", "{}");
    put_text("pytorch_model.bin", "");
    expect_refusal(KT_EFILE, "matches '*.safetensors'; there is config.json, pytorch_model.bin");
    kt_checkpoint checkpoint;
    kt_err err = {0};
    assert_int_equal(
        kt_checkpoint_open(&arena, "no/such/folder", KT_STR("*.safetensors"), &checkpoint, &err),
        KT_EFILE);
    assert_non_null(strstr(err.text, "'no/such/folder' is not a folder"));
}

// A header of every length, cut off: never more than an error.
static void every_cut_is_refused(void **state) {
    (void)state;
    const char *header =
        "{\"v\":" T("\"U8\"", "[4]", "[0,4]") ",\"w\":" T("\"F32\"", "[1]", "[4,8]") "}";
    put("a.safetensors", header, 8);
    kt_str whole;
    kt_err err = {0};
    const char *path = kt_path_join(&arena, folder, "a.safetensors");
    assert_int_equal(kt_file_read(&arena, path, 1000, &whole, &err), KT_OK);
    for (size_t n = 0; n < whole.n; n++) {
        test_write(kt_path_join(&arena, folder, "a.safetensors"), whole.at, n);
        expect_refusal(KT_EFORMAT, "a.safetensors");
    }
    test_write(kt_path_join(&arena, folder, "a.safetensors"), whole.at, whole.n);
    kt_checkpoint in = open_good();
    kt_checkpoint_close(&in);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, make_folder, empty_folder)

int main(void) {
    const struct CMUnitTest tests[] = {
        CASE(tensors_are_found_and_read),
        CASE(every_dtype_is_known),
        CASE(a_file_without_tensors_is_fine),
        CASE(damaged_headers_are_refused),
        CASE(damaged_lengths_are_refused),
        CASE(a_long_name_is_refused),
        CASE(shards_are_read_together),
        CASE(indexes_that_do_not_fit_are_refused),
        CASE(a_tensor_in_two_files_is_refused),
        CASE(missing_files_are_named),
        CASE(every_cut_is_refused),
    };
    return cmocka_run_group_tests_name("safetensors", tests, NULL, NULL);
}
