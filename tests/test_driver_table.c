// The table of driver functions, against the toolkit's list of symbols, and a machine without a
// driver.
//
// The toolkit's stand-in library exports one symbol per function and version of its interface.
// Where no toolkit is installed that test is skipped; the rest needs nothing.
#include "runtime/gpu/device.h"
#include "runtime/gpu/launch.h"

#include "runtime/base/os.h"
#include "tests/util.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <setjmp.h> // cmocka.h needs these four first

#include <cmocka.h>

// The symbol that holds the version of the interface that our prototype was written for. Source:
// the export list of the stand-in library of CUDA 13.0: the first version of a function has its
// plain name, later ones a suffix.
typedef struct renamed {
    const char *name, *symbol;
} renamed;

static const renamed renamed_symbols[] = {
    {"cuDeviceTotalMem", "cuDeviceTotalMem_v2"},
    {"cuDevicePrimaryCtxRelease", "cuDevicePrimaryCtxRelease_v2"},
    {"cuDevicePrimaryCtxSetFlags", "cuDevicePrimaryCtxSetFlags_v2"},
    {"cuMemGetInfo", "cuMemGetInfo_v2"},
    {"cuMemAlloc", "cuMemAlloc_v2"},
    {"cuMemFree", "cuMemFree_v2"},
    {"cuMemHostRegister", "cuMemHostRegister_v2"},
    {"cuMemHostGetDevicePointer", "cuMemHostGetDevicePointer_v2"},
    {"cuMemcpyHtoDAsync", "cuMemcpyHtoDAsync_v2"},
    {"cuMemcpyDtoHAsync", "cuMemcpyDtoHAsync_v2"},
    {"cuMemcpyDtoDAsync", "cuMemcpyDtoDAsync_v2"},
    {"cuStreamDestroy", "cuStreamDestroy_v2"},
    {"cuEventDestroy", "cuEventDestroy_v2"},
    {"cuGraphAddKernelNode", "cuGraphAddKernelNode_v2"},
};

static const char *symbol_of(const char *name) {
    for (size_t i = 0; i < sizeof renamed_symbols / sizeof renamed_symbols[0]; i++)
        if (strcmp(renamed_symbols[i].name, name) == 0) return renamed_symbols[i].symbol;
    return name;
}

static kt_os_library *open_stub(void) {
    static const char *const places[] = {
        "/usr/local/cuda/lib64/stubs/libcuda.so",
        "/usr/local/cuda/lib/stubs/libcuda.so",
        "/usr/lib/x86_64-linux-gnu/stubs/libcuda.so",
    };
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        kt_os_library *stub = kt_os_library_open(places[i], NULL);
        if (stub != NULL) return stub;
    }
    return NULL;
}

static void every_function_is_exported(void **state) {
    (void)state;
    kt_os_library *stub = open_stub();
    if (stub == NULL) skip();
    int n_required = 0;
    for (int i = 0; i < kt_driver_n_rows; i++) {
        const kt_driver_row *row = &kt_driver_rows[i];
        if (kt_os_library_function(stub, symbol_of(row->name)) == NULL)
            fail_msg("'%s' is not a function of the driver", symbol_of(row->name));
        n_required += row->required;
    }
    assert_true(kt_os_library_function(stub, "cuGetProcAddress_v2") != NULL);
    assert_true(n_required > 40);
    kt_os_library_close(stub);
}

static void rows_are_plausible(void **state) {
    (void)state;
    for (int i = 0; i < kt_driver_n_rows; i++) {
        const kt_driver_row *row = &kt_driver_rows[i];
        assert_true(row->version >= 2000 && row->version <= 13000);
        // A required function is in the oldest driver that is accepted.
        if (row->required) assert_true(row->version <= 12000);
        assert_int_equal(row->field % sizeof(void *), 0);
        for (int j = 0; j < i; j++) {
            assert_string_not_equal(row->name, kt_driver_rows[j].name);
            assert_true(row->field != kt_driver_rows[j].field);
        }
    }
}

static void without_a_driver_it_says_so(void **state) {
    (void)state;
    kt_gpu *gpu = NULL;
    kt_err err = {0};
    kt_status status = kt_gpu_open(NULL, &gpu, &err);
    if (status == KT_OK) { // this machine has one
        kt_gpu_close(gpu);
        skip();
    }
    assert_int_equal(status, KT_EDRIVER);
    assert_int_equal(err.code, KT_EDRIVER);
    assert_int_equal(kt_status_exit(status), 3);
    assert_null(gpu);
    assert_non_null(strstr(err.text, "driver"));
    assert_non_null(strstr(err.text, "note: "));
    assert_int_equal(kt_gpu_count(&err), 0);
    assert_int_equal(err.code, KT_EDRIVER);
}

// "test_driver_table --open" is started with the toolkit's stand-in in LD_LIBRARY_PATH.
static int open_and_tell(void) {
    kt_gpu *gpu = NULL;
    kt_err err;
    kt_status status = kt_gpu_open(NULL, &gpu, &err);
    (void)printf("%s: %s\n", kt_status_name(status), status == KT_OK ? "" : err.text);
    kt_gpu_close(gpu);
    return 0;
}

static void a_stand_in_for_linking_is_named(void **state) {
    (void)state;
    kt_os_library *stub = open_stub();
    if (stub == NULL) skip();
    char path[512];
    assert_true(kt_os_library_path(stub, path, sizeof path));
    kt_arena arena = {0};
    const char *self = kt_os_executable(&arena);
    const char *folder = test_folder(&arena);
    const char *link = kt_arena_printf(&arena, "%s/libcuda.so.1", folder);
    const char *make[] = {"ln", "-s", path, link, NULL};
    assert_int_equal(kt_os_run(make, NULL), 0);
    const char *argv[] = {
        "env", kt_arena_printf(&arena, "LD_LIBRARY_PATH=%s", folder), self, "--open", NULL};
    kt_buf out = {0};
    assert_int_equal(kt_os_run(argv, &out), 0);
    // With a driver behind the stand-in it is used; else the message names the stand-in's file.
    bool opened = strncmp(out.at, "ok:", 3) == 0;
    if (!opened) {
        if (strstr(out.at, "driver: ") != out.at || strstr(out.at, folder) == NULL ||
            strstr(out.at, "stand-in for linking") == NULL)
            fail_msg("%s", out.at);
    }
    test_remove(folder);
    kt_buf_deinit(&out);
    kt_arena_deinit(&arena);
    kt_os_library_close(stub);
}

static kt_cu_result KT_CU_API no_name(kt_cu_result code, const char **out) {
    (void)code;
    *out = NULL;
    return 1;
}

static void codes_become_statuses(void **state) {
    (void)state;
    kt_driver driver = {.cuGetErrorName = no_name, .cuGetErrorString = no_name};
    kt_err err;
    assert_int_equal(kt_driver_check(&driver, 0, "cuX", "testing", &err), KT_OK);
    static const int rows[][2] = {{2, KT_EMEMORY}, {34, KT_EDRIVER}, {100, KT_EDRIVER},
        {803, KT_EDRIVER}, {804, KT_EDRIVER}, {209, KT_ECOMPILE}, {222, KT_ECOMPILE},
        {700, KT_EGPU}, {999, KT_EGPU}, {12345, KT_EGPU}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        kt_status status = kt_driver_check(&driver, rows[i][0], "cuX", "testing", &err);
        assert_int_equal(status, rows[i][1]);
        assert_non_null(strstr(err.text, "testing failed: error "));
        assert_non_null(strstr(err.text, "cuX"));
        bool known = rows[i][0] != 12345;
        assert_int_equal(strstr(err.text, "\nnote: ") != NULL, known);
    }
    assert_true(kt_driver_error_is_sticky(700));
    assert_true(kt_driver_error_is_sticky(719));
    assert_false(kt_driver_error_is_sticky(2));
    assert_false(kt_driver_error_is_sticky(1));
}

static void launch_records_are_checked(void **state) {
    (void)state;
    kt_gpu gpu = {.info = {.max_threads = 1024}};
    kt_gpu_kernel kernel = {.name = "kt_k",
        .n_params = 2,
        .param_offset = {0, 8},
        .param_bytes = {8, 4},
        .max_threads = 256,
        .max_dynamic_shared_bytes = 1000};
    const unsigned char bytes[12] = {0};
    const kt_launch good = {.kernel = &kernel,
        .grid = {3, 1, 1},
        .block = {256, 1, 1},
        .shared_bytes = 1000,
        .params = bytes,
        .params_bytes = 12,
        .n_params = 2,
        .name = "layer 3: k"};
    void *params[KT_GPU_MAX_PARAMS] = {NULL};
    kt_err err;
    assert_int_equal(kt_launch_prepare(&gpu, &good, params, &err), KT_OK);
    assert_ptr_equal(params[0], bytes);
    assert_ptr_equal(params[1], bytes + 8);
    const uint32_t swapped[] = {4, 0};
    kt_launch l = good;
    l.param_at = swapped;
    assert_int_equal(kt_launch_prepare(&gpu, &l, params, &err), KT_OK);
    assert_ptr_equal(params[0], bytes + 4);
    l.params_bytes = 11;
    assert_int_equal(kt_launch_prepare(&gpu, &l, params, &err), KT_EOP);
    kt_launch wrong[6];
    for (int i = 0; i < 6; i++) wrong[i] = good;
    wrong[0].grid[1] = 0;
    wrong[1].block[1] = 2; // 512 threads, the kernel allows 256
    wrong[2].shared_bytes = 1001;
    wrong[3].n_params = 1;
    wrong[4].kernel = NULL;
    wrong[5].grid[2] = 65536;
    for (int i = 0; i < 6; i++) {
        assert_int_equal(kt_launch_prepare(&gpu, &wrong[i], params, &err), KT_EOP);
        assert_non_null(strstr(err.text, "layer 3: k"));
    }
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "--open") == 0) return open_and_tell();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_function_is_exported),
        cmocka_unit_test(rows_are_plausible),
        cmocka_unit_test(without_a_driver_it_says_so),
        cmocka_unit_test(a_stand_in_for_linking_is_named),
        cmocka_unit_test(codes_become_statuses),
        cmocka_unit_test(launch_records_are_checked),
    };
    return cmocka_run_group_tests_name("driver_table", tests, NULL, NULL);
}
