// From a plan's builds to compile requests.
#include "runtime/exec/cuda.h"

#include "runtime/base/file.h"

enum { SOURCE_MAX = 4 << 20 };

static kt_status define_all(kt_options *options, const kt_build *build, kt_err *err) {
    for (int i = 0; i < build->n_defines; i++) {
        kt_str text = kt_str_from(build->defines[i]);
        ptrdiff_t equals = kt_str_find(text, '=');
        KT_ASSERT(equals > 0);
        char *name = kt_str_z(options->arena, kt_str_slice(text, 0, (size_t)equals));
        KT_TRY(kt_options_define(options, name, text.at + equals + 1, err));
    }
    return KT_OK;
}

static kt_status fill_request(
    kt_arena *arena, const kt_build *build, int arch, kt_compile_request *out, kt_err *err) {
    char *file = kt_arena_printf(arena, "%.*s.cu", KT_STR_ARG(build->op->name));
    char *path = kt_path_join(arena, build->op->folder, file);
    if (!kt_os_may_be_file(path))
        return KT_FAIL(err, KT_EOP, "op '%.*s' declares kernels, but there is no '%s'",
            KT_STR_ARG(build->op->name), path);
    // The name reaches the code's debug notes only; it must not depend on where the op lies.
    out->name = build->op->shipped
                    ? kt_arena_printf(arena, "ops/%.*s/%s", KT_STR_ARG(build->op->name), file)
                    : path;
    KT_TRY(kt_file_read(arena, path, SOURCE_MAX, &out->source, err));
    kt_options *options = KT_NEW(arena, kt_options);
    kt_options_init(options, arena, arch);
    KT_TRY(define_all(options, build, err));
    out->options = options;
    return KT_OK;
}

kt_status kt_cuda_requests(
    kt_arena *arena, const kt_plan *plan, int arch, kt_compile_request **out, kt_err *err) {
    *out = KT_NEW_ARRAY(arena, kt_compile_request, plan->n_builds + 1);
    for (int i = 0; i < plan->n_builds; i++) {
        kt_status status = fill_request(arena, &plan->builds[i], arch, &(*out)[i], err);
        if (status != KT_OK) return status;
    }
    return KT_OK;
}

static kt_status check_kernel(
    kt_arena *arena, const kt_build *build, const kt_cubin *cubin, const char *name, kt_err *err) {
    const kt_cubin_kernel *kernel = kt_cubin_find(cubin, name);
    if (!kernel)
        return KT_FAIL(err, KT_EOP, "the CUDA source of op '%.*s' has no kernel '%s'",
            KT_STR_ARG(build->op->name), name);
    int n = 0;
    const kt_arg *args = kt_op_args(arena, build->op, build->variant, &n);
    for (int i = 0; i < n && i < kernel->n_params; i++)
        if ((uint32_t)args[i].bytes != kernel->params[i].size)
            return KT_FAIL(err, KT_EOP,
                "kernel '%s' takes %u bytes as parameter %d, the manifest says '%.*s' of %d bytes",
                name, kernel->params[i].size, i, KT_STR_ARG(args[i].name), args[i].bytes);
    if (n > kernel->n_params)
        return KT_FAIL(err, KT_EOP,
            "kernel '%s' takes %d parameters, the manifest says %d, the last one '%.*s'", name,
            kernel->n_params, n, KT_STR_ARG(args[n - 1].name));
    if (n < kernel->n_params)
        return KT_FAIL(err, KT_EOP, "kernel '%s' takes %d parameters, the manifest says %d", name,
            kernel->n_params, n);
    return KT_OK;
}

kt_status kt_cuda_check_build(
    kt_arena *arena, const kt_build *build, const kt_cubin *cubin, kt_err *err) {
    for (int i = 0; i < build->variant->n_launches; i++) {
        char *name =
            kt_op_kernel_name(arena, build->op, build->variant, &build->variant->launches[i]);
        kt_status status = check_kernel(arena, build, cubin, name, err);
        if (status == KT_OK) continue;
        kt_err_note(err, "in '%s'; 'kotaro ops show %.*s' prints the prototype", build->op->folder,
            KT_STR_ARG(build->op->name));
        return status;
    }
    return KT_OK;
}
