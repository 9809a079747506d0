// The goldens of test_pixels on the GPU: the kernels resize_image and patchify give Pillow's bytes,
// which are those of their C implementations. No tolerance. Needs neither Python nor Pillow.
#include "runtime/base/file.h"
#include "runtime/base/log.h"
#include "tests/probe.h"
#include "tests/util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

int main(void) {
    kt_arena arena = {0};
    kt_err err = {0};
    probe_score score = {0};
    if (kt_gpu_count(&err) == 0) {
        printf("1..1\nok 1 # SKIP no NVIDIA GPU: %.*s\n", (int)strcspn(err.text, "\n"), err.text);
        return 0;
    }
    kt_log_set_level(KT_LOG_WARN);
    const char *folder = test_folder(&arena);
    double start = kt_os_now_ms();
    kt_status status = probe_goldens(KT_DEVICE_CUDA, folder, &score, &err);
    test_remove(folder);
    if (status != KT_OK) printf("# %s\n", err.text);
    bool ok = status == KT_OK && score.n >= 200 && score.equal == score.n;
    printf("1..1\n%s 1 - %d of %d pictures equal Pillow's bytes, %.1f s\n", ok ? "ok" : "not ok",
        score.equal, score.n, (kt_os_now_ms() - start) / 1e3);
    kt_arena_deinit(&arena);
    return ok ? 0 : 1;
}
