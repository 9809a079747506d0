#include "runtime/exec/session.h"

#include "runtime/base/file.h"
#include "runtime/base/log.h"
#include "runtime/exec/fit.h"
#include "runtime/exec/sweep.h"
#include "runtime/exec/times.h"
#include "runtime/gpu/memory.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    RESERVE_MB = 200,
    RESERVE_TIMEOUT_MB = 600
}; // kept free for the system; more where it draws the desktop

// ---- finding things

static bool is_home(kt_arena *arena, const char *folder) {
    return kt_os_stat(kt_path_join(arena, folder, "ops")).kind == KT_PATH_FOLDER &&
           kt_os_stat(kt_path_join(arena, folder, "pipelines")).kind == KT_PATH_FOLDER;
}

char *kt_home_folder(kt_arena *arena) {
    const char *given = kt_os_getenv("KOTARO_HOME");
    if (given && *given)
        return is_home(arena, given) ? kt_arena_copy(arena, given, strlen(given)) : NULL;
    const char *program = kt_os_executable(arena);
    if (!program) return NULL;
    char *folder = kt_path_folder(arena, program);
    for (int i = 0; i < 3; i++) {
        if (is_home(arena, folder)) return folder;
        folder = kt_path_folder(arena, folder);
    }
    return NULL;
}

char *kt_home_find(kt_arena *arena, const char *path) {
    char *here = kt_arena_copy(arena, path, strlen(path));
    if (kt_os_stat(path).kind != KT_PATH_NONE || kt_path_is_absolute(path)) return here;
    const char *home = kt_home_folder(arena);
    if (!home) return here;
    char *there = kt_path_join(arena, home, path);
    return kt_os_stat(there).kind != KT_PATH_NONE ? there : here;
}

// ---- reading

kt_status kt_home_get(kt_arena *arena, const char **out, kt_err *err) {
    *out = kt_home_folder(arena);
    const char *given = kt_os_getenv("KOTARO_HOME");
    if (*out) return KT_OK;
    if (given && *given)
        return KT_FAIL(err, KT_EFILE,
            "KOTARO_HOME is '%s', which does not hold the folders ops/ and pipelines/", given);
    return KT_FAIL(err, KT_EFILE,
        "the folders ops/ and pipelines/ are neither beside this program nor above it; set "
        "KOTARO_HOME to the folder that holds them");
}

static bool apply_settings(kt_session *s, kt_diag *diag) {
    const kt_options_run *o = &s->options;
    bool ok = true;
    for (int i = 0; i < o->n_settings; i++)
        ok = kt_pipeline_set(s->pipeline, kt_str_from(o->settings[i].name),
                 kt_str_from(o->settings[i].value), diag) &&
             ok;
    if (o->greedy)
        ok = kt_pipeline_set(s->pipeline, KT_STR("sampler.temperature"), KT_STR("0"), diag) && ok;
    if (o->question) ok = kt_pipeline_ask(s->pipeline, kt_str_from(o->question), diag) && ok;
    if (o->max_tokens > 0) kt_pipeline_cap(s->pipeline, o->max_tokens);
    return ok;
}

// It has a parameter for one, whatever became of the step that reads it.
static bool names_picture(const kt_session *s) {
    for (int i = 0; i < s->pipeline->n_params; i++)
        if (s->pipeline->params[i].param.kind == KT_PARAM_IMAGE) return true;
    return false;
}

kt_status kt_session_read(kt_session *s, kt_diag *diag, kt_err *err) {
    kt_arena *arena = &s->model_arena;
    const char *home;
    KT_TRY(kt_home_get(arena, &home, err));
    s->registry = kt_registry_open(
        arena, kt_path_join(arena, home, "ops"), s->options.ops, s->options.n_ops, diag);
    const char *path = kt_home_find(arena, s->options.pipeline);
    if (s->registry) s->pipeline = kt_pipeline_open(arena, path, diag);
    bool ok = s->registry && s->pipeline && apply_settings(s, diag);
    if (!ok || diag->n_errors > 0)
        return KT_FAIL(err, KT_EYAML, "'%s' has mistakes", s->options.pipeline);
    if (s->options.with_picture && !kt_session_takes_picture(s) && !names_picture(s))
        return KT_FAIL(err, KT_EUSAGE,
            "pipeline '%.*s' looks at no picture, and one is given; a question is asked with -p "
            "TEXT",
            KT_STR_ARG(s->pipeline->name));
    if (s->options.no_picture && kt_session_takes_picture(s))
        return KT_FAIL(err, KT_EUSAGE, "pipeline '%.*s' looks at a picture, and none is given",
            KT_STR_ARG(s->pipeline->name));
    return KT_OK;
}

bool kt_session_takes_picture(const kt_session *s) {
    for (int i = 0; i < s->pipeline->n_stages; i++) {
        const kt_pipe_stage *stage = &s->pipeline->stages[i];
        for (int k = 0; k < stage->n_steps; k++)
            if (kt_str_is(stage->steps[k].host.text, "read_image")) return true;
    }
    return false;
}

// ---- binding

static void copy_templates(kt_session *s) {
    const kt_model_chat *chat = &s->model.chat;
    const kt_model_picture *picture = &s->model.picture;
    s->context.chat = (kt_chat_template){chat->system, chat->user, chat->assistant, chat->answer,
        chat->default_system, chat->join, chat->stop, chat->n_stop};
    s->context.markup = (kt_picture_markup){
        picture->scheme, picture->text, picture->slice, picture->row, picture->token};
}

// A pipeline may be planned without knowing what will be asked.
static bool is_asked(const kt_session *s) {
    const kt_pipe_param *param = kt_pipeline_param(s->pipeline, KT_STR("items"));
    return !param || param->value || param->param.default_value;
}

static kt_status bind_texts(kt_session *s, kt_diag *diag, kt_err *err) {
    kt_pipe_item *items = NULL;
    if (is_asked(s) &&
        !kt_pipeline_items(s->pipeline, &s->model_arena, diag, &items, &s->context.n_items))
        return KT_FAIL(err, KT_EYAML, "'%s' has mistakes", s->options.pipeline);
    s->context.items = items;
    if (!kt_pipeline_text(s->pipeline, "shared", &s->context.shared))
        s->context.shared = KT_STR("");
    if (!kt_pipeline_text(s->pipeline, "system", &s->context.system))
        s->context.system = KT_STR("");
    return KT_OK;
}

// Those of the model's folder or file. One without a row in the embedding table never comes.
static kt_status bind_stops(kt_session *s, kt_err *err) {
    const kt_model *m = &s->model;
    kt_value rows = kt_value_int(INT32_MAX);
    bool known = kt_model_constant(m, KT_STR("vocab"), &rows);
    int32_t *ids = KT_NEW_ARRAY(&s->model_arena, int32_t, m->n_stop_ids);
    for (int i = 0; i < m->n_stop_ids; i++) {
        if (m->stop_ids[i] < 0 || m->stop_ids[i] >= rows.i)
            return KT_FAIL(err, KT_EMODEL,
                "'%s' says that token %" PRId64
                " ends an answer (eos_token_id), and ids %s %" PRId64,
                s->model_path, m->stop_ids[i], known ? "of its vocabulary are 0 to" : "are 0 to",
                rows.i - 1);
        ids[i] = (int32_t)m->stop_ids[i];
    }
    s->context.stop_ids = ids;
    s->context.n_stop_ids = m->n_stop_ids;
    return KT_OK;
}

// A token without a row in the embedding table would read as zeros, and a stop token among them
// never comes.
static kt_status check_vocabulary(const kt_session *s, kt_err *err) {
    kt_value rows;
    int64_t ids = kt_tokenizer_size(s->tokenizer);
    if (!kt_model_constant(&s->model, KT_STR("vocab"), &rows) || ids <= rows.i) return KT_OK;
    return KT_FAIL(err, KT_EMODEL,
        "'%s' has token ids up to %" PRId64 ", and the model's vocabulary has %" PRId64
        " rows; the two files are not of one model",
        s->model.tokenizer_path, ids - 1, rows.i);
}

// A pipeline of token ids works with a folder that has none.
static bool needs_tokenizer(const kt_session *s) {
    int n;
    const kt_host_step *table = kt_host_table(s->pipeline->arena, &n);
    for (int i = 0; i < s->pipeline->n_stages; i++)
        for (int k = 0; k < s->pipeline->stages[i].n_steps; k++)
            for (int h = 0; h < n; h++)
                if (table[h].tokenizer &&
                    kt_str_eq(table[h].name, s->pipeline->stages[i].steps[k].host.text))
                    return true;
    return false;
}

static kt_status bind_model(kt_session *s, kt_diag *diag, kt_err *err) {
    kt_arena *arena = &s->model_arena;
    const char *folder = s->options.model ? kt_home_find(arena, s->options.model)
                                          : kt_pipeline_model(s->pipeline, arena);
    if (!folder)
        return KT_FAIL(err, KT_EUSAGE,
            "'%s' names no model; give a model folder or a .gguf file with --model DIR",
            s->options.pipeline);
    KT_TRY(kt_model_open(arena, s->registry, s->pipeline->model_files, s->pipeline->n_model_files,
        folder, &s->model, diag, err));
    s->model_open = true;
    s->model_path = folder;
    if (diag->n_errors > 0)
        return KT_FAIL(err, KT_EMODEL, "'%s' does not fit the model files", folder);
    copy_templates(s);
    KT_TRY(bind_texts(s, diag, err));
    return bind_stops(s, err);
}

static void open_tokenizer(void *ctx) {
    kt_session *s = ctx;
    s->tokenizer_status =
        kt_tokenizer_open(s->model.tokenizer_path, &s->tokenizer, &s->tokenizer_err);
}

// The tokenizer's file has some hundred thousand lines: another thread reads it.
static void tokenizer_begin(kt_session *s) {
    if (!needs_tokenizer(s)) return;
    s->tokenizer_thread = kt_os_thread_start(open_tokenizer, s, (size_t)8 << 20);
    if (!s->tokenizer_thread) open_tokenizer(s);
}

static kt_status tokenizer_end(kt_session *s, kt_err *err) {
    if (s->tokenizer_thread) kt_os_thread_join(s->tokenizer_thread);
    s->tokenizer_thread = NULL;
    if (!needs_tokenizer(s)) return KT_OK;
    if (s->tokenizer_status == KT_OK) return check_vocabulary(s, err);
    *err = s->tokenizer_err;
    return s->tokenizer_status;
}

kt_status kt_session_bind(kt_session *s, kt_diag *diag, kt_err *err) {
    KT_TRY(bind_model(s, diag, err));
    tokenizer_begin(s);
    return tokenizer_end(s, err);
}

// The most rows that the step which writes prompts may make; 0: there is none.
static int64_t most_rows(const kt_plan *plan) {
    for (int i = 0; i < plan->n_stages; i++) {
        const kt_step_list *list = &plan->stages[i].lists[0];
        for (int k = 0; k < list->n_steps; k++) {
            const kt_host_call *call = list->steps[k].host;
            if (!call) continue;
            for (int d = 0; d < call->step->n_decides; d++)
                if (kt_str_is(call->step->decides[d], "r") && call->dims[d] >= 0)
                    return plan->dims[call->dims[d]].max;
        }
    }
    return 0;
}

// Every item is a row of one step, unless all are asked in one prompt.
static kt_status check_items(const kt_session *s, kt_err *err) {
    kt_str mode;
    bool joint = kt_pipeline_text(s->pipeline, "mode", &mode) && kt_str_is(mode, "joint");
    int64_t rows = most_rows(s->plan);
    if (joint || rows == 0 || s->context.n_items <= rows) return KT_OK;
    return KT_FAIL(err, KT_EYAML,
        "'%s' has %d items, and at most %" PRId64
        " are decoded side by side (dim 'rows'); ask fewer, or set mode=joint",
        s->options.pipeline, s->context.n_items, rows);
}

// Anything but answers would be a run that says nothing.
static bool check_result(const kt_session *s, kt_diag *diag) {
    const kt_tensor *t = &s->plan->tensors[s->plan->result];
    kt_ref result = s->pipeline->result;
    if (t->home == KT_HOME_HOST && t->host == KT_HOST_TYPE_ANSWERS) return true;
    kt_diag_error(diag, KT_RULE_TYPE, result.at,
        "the result '%.*s' is no answers: a program can print nothing else",
        KT_STR_ARG(result.text));
    kt_diag_note(diag, "the host step 'read_answers' makes them");
    return false;
}

kt_status kt_session_plan(kt_session *s, const kt_target *target, kt_diag *diag, kt_err *err) {
    kt_plan_request request = {
        .registry = s->registry, .pipeline = s->pipeline, .model = &s->model, .target = *target};
    kt_status status = kt_plan_open(&s->plan_arena, &request, &s->plan, diag, err);
    if (status == KT_EMEMORY) kt_fit_notes(s, target, err);
    if (status != KT_OK) return status;
    if (diag->n_errors > 0 || !check_result(s, diag))
        return KT_FAIL(err, KT_EYAML, "'%s' has mistakes", s->options.pipeline);
    if (s->plan->n_stages > KT_MAX_STAGES)
        return KT_FAIL(err, KT_EYAML, "'%s' has %d stages, at most %d are possible",
            s->options.pipeline, s->plan->n_stages, KT_MAX_STAGES);
    return check_items(s, err);
}

// ---- device

static kt_status open_gpu(kt_session *s, kt_err *err) {
    kt_gpu_options options = {
        .check_each = s->options.check_each, .green_sms = s->options.green_sms};
    if (s->options.trace) {
        s->trace = kt_os_fopen(s->options.trace, "w");
        if (!s->trace)
            return KT_FAIL(
                err, KT_EFILE, "'%s' cannot be written: %s", s->options.trace, strerror(errno));
        options.trace = s->trace;
    }
    double start = kt_os_now_ms();
    KT_TRY(kt_gpu_open(&options, &s->gpu, err));
    s->device_ms = kt_os_now_ms() - start;
    snprintf(s->device_name, sizeof s->device_name, "%s", s->gpu->info.name);
    return KT_OK;
}

static void open_gpu_beside(void *ctx) {
    kt_session *s = ctx;
    s->device_status = open_gpu(s, &s->device_err);
}

void kt_session_device_begin(kt_session *s) {
    if (s->options.device == KT_DEVICE_CPU) return;
    s->device_thread = kt_os_thread_start(open_gpu_beside, s, (size_t)8 << 20);
}

static kt_status await_gpu(kt_session *s, kt_err *err) {
    if (!s->device_thread) return open_gpu(s, err);
    kt_os_thread_join(s->device_thread);
    s->device_thread = NULL;
    if (s->device_status == KT_OK) return kt_gpu_attach(s->gpu, err);
    *err = s->device_err;
    return s->device_status;
}

kt_status kt_session_device_open(kt_session *s, kt_err *err) {
    if (s->options.device == KT_DEVICE_CPU && s->options.trace)
        kt_log_warn("'%s' is not written: the CPU has no driver calls", s->options.trace);
    if (s->options.device == KT_DEVICE_CPU) return KT_OK;
    kt_status status = await_gpu(s, err);
    if (status == KT_EDRIVER && s->options.device == KT_DEVICE_AUTO) {
        kt_str why = kt_str_from(err->text);
        ptrdiff_t line = kt_str_find(why, '\n');
        if (line >= 0) why.n = (size_t)line;
        kt_log_info("using the CPU: %.*s", KT_STR_ARG(why));
        return KT_OK;
    }
    return status;
}

kt_status kt_session_target(kt_session *s, kt_target *out, kt_err *err) {
    *out = (kt_target){
        .memory_bytes = s->options.memory_limit, .slots = s->options.several ? KT_SLOTS : 1};
    if (!s->gpu) {
        int64_t machine = kt_os_memory_bytes();
        if (out->memory_bytes == 0 || out->memory_bytes > machine) out->memory_bytes = machine;
        return KT_OK;
    }
    const kt_gpu_info *info = &s->gpu->info;
    out->cuda = true;
    out->cc = info->arch;
    out->sm_count = info->sm_count;
    out->smem_max = info->shared_optin_bytes;
    int64_t free_bytes = 0, total_bytes = 0;
    KT_TRY(kt_gpu_memory(s->gpu, &free_bytes, &total_bytes, err));
    s->free_bytes = free_bytes;
    int64_t reserve = (int64_t)(info->kernel_timeout ? RESERVE_TIMEOUT_MB : RESERVE_MB) << 20;
    int64_t room = free_bytes > reserve ? free_bytes - reserve : 1;
    if (out->memory_bytes == 0 || out->memory_bytes > room) out->memory_bytes = room;
    return KT_OK;
}

static void show_progress(void *ctx, const kt_compile_progress *progress) {
    (void)ctx;
    kt_log_progress("preparing kernels: %d of %d (%d compiled)", progress->n_done, progress->n,
        progress->n_compiled);
}

kt_status kt_session_compiler(kt_session *s, kt_err *err) {
    kt_arena *arena = &s->plan_arena;
    const char *home = kt_home_folder(arena);
    const char **packs = KT_NEW_ARRAY(arena, const char *, 1);
    packs[0] = home ? kt_path_join(arena, home, "cubins") : NULL;
    kt_compiler_options options = {.headers = kt_device_headers,
        .no_cache = s->options.no_cache,
        .packs = packs,
        .n_packs = home ? 1 : 0,
        .stop = s->options.stop,
        .progress = show_progress};
    return kt_compiler_open(&options, &s->compiler, err);
}

// ---- starting

static kt_status open_cuda(kt_session *s, kt_err *err) {
    KT_TRY(kt_session_compiler(s, err));
    kt_cuda_options options = {.gpu = s->gpu,
        .compiler = s->compiler,
        .graph = !s->options.no_graph && !s->options.check_each && !s->dump,
        .profile = &s->profile,
        .slots = s->options.several ? KT_SLOTS : 1,
        .stop = s->options.stop};
    kt_status status = kt_cuda_backend_open(&s->plan_arena, s->plan, &options, &s->backend, err);
    kt_log_progress(NULL);
    return status;
}

static kt_status open_cpu(kt_session *s, kt_err *err) {
    kt_cpu_options options = {.pool = s->pool,
        .include = kt_home_folder(&s->plan_arena),
        .profile = &s->profile,
        .no_blas = s->options.no_blas,
        .stop = s->options.stop};
    return kt_cpu_backend_open(&s->plan_arena, s->plan, &options, &s->backend, err);
}

// Without it the profile still has times and bytes, so a failure is no error.
static void measure_ceiling(kt_session *s) {
    kt_err err;
    kt_sweep sweep = {.registry = s->registry,
        .gpu = s->gpu,
        .compiler = s->compiler,
        .pool = s->pool,
        .include = kt_home_folder(&s->plan_arena),
        .stop = s->options.stop};
    if (kt_sweep_read(&sweep, &s->profile.read_ceiling, &err) != KT_OK)
        kt_log_warn("the read ceiling is not measured: %s", err.text);
}

kt_status kt_session_start(kt_session *s, kt_err *err) {
    s->pool = kt_pool_open(0);
    s->profile.on = s->options.profile;
    s->profile.arena = &s->plan_arena;
    double start = kt_os_now_ms();
    KT_TRY(s->gpu ? open_cuda(s, err) : open_cpu(s, err));
    double opened = kt_os_now_ms();
    KT_TRY(kt_load_weights(s->backend, s->options.stop, &s->load, err));
    double loaded = kt_os_now_ms();
    if (s->gpu) KT_TRY(kt_cuda_backend_record(s->backend, err));
    s->load_ms += loaded - opened;
    s->prepare_ms += opened - start + kt_os_now_ms() - loaded;
    if (s->profile.on) measure_ceiling(s);
    s->context.plan = s->plan;
    s->context.backend = s->backend;
    s->context.tokenizer = s->tokenizer;
    s->context.pool = s->pool;
    s->context.stop = s->options.stop;
    return KT_OK;
}

// Before anything is loaded: an unknown address and a folder that cannot be used show at once.
static kt_status open_dump(kt_session *s, kt_err *err) {
    const kt_options_run *o = &s->options;
    if (!o->dump && !o->dump_to) return KT_OK;
    KT_TRY(kt_dump_open(
        &s->plan_arena, s->plan, o->dump_only, o->n_dump_only, &s->dump_to, &s->dump, err));
    if (o->dump_to) {
        s->dump_to = *o->dump_to;
        return KT_OK;
    }
    KT_TRY(kt_dump_folder_open(&s->plan_arena, o->dump, &s->dump_folder, err));
    s->dump_to = kt_dump_folder_to(s->dump_folder);
    return KT_OK;
}

// A model that says in its config.json what it is good for is quoted.
static void print_notice(const kt_session *s) {
    kt_str notice;
    if (kt_config_text(s->model.config, KT_STR("notice"), &notice))
        kt_log_info("%s: %.*s", kt_path_name(s->model.folder), KT_STR_ARG(notice));
}

static kt_status refuse_silence(kt_session *s, kt_diag *diag, kt_err *err) {
    kt_pipe_item *items;
    int n;
    bool asked = kt_pipeline_items(s->pipeline, &s->model_arena, diag, &items, &n);
    KT_ASSERT(!asked); // it has said so
    return KT_FAIL(err, KT_EYAML, "'%s' has mistakes", s->options.pipeline);
}

static kt_status open_all(kt_session *s, kt_diag *diag, kt_err *err) {
    kt_target target;
    double start = kt_os_now_ms();
    kt_session_device_begin(s);
    KT_TRY(kt_session_read(s, diag, err));
    if (!is_asked(s)) KT_TRY(refuse_silence(s, diag, err));
    KT_TRY(bind_model(s, diag, err));
    print_notice(s);
    tokenizer_begin(s);
    double bound = kt_os_now_ms();
    s->load_ms = s->files_ms = bound - start;
    KT_TRY(kt_session_device_open(s, err));
    KT_TRY(kt_session_target(s, &target, err));
    double planning = kt_os_now_ms();
    s->device_wait_ms = planning - bound;
    KT_TRY(kt_session_plan(s, &target, diag, err));
    s->plan_ms = kt_os_now_ms() - planning;
    kt_times_planned(s);
    KT_TRY(tokenizer_end(s, err)); // before anything large is taken
    s->tokenizer_wait_ms = kt_os_now_ms() - planning - s->plan_ms;
    KT_TRY(open_dump(s, err));
    s->prepare_ms = kt_os_now_ms() - planning;
    KT_TRY(kt_session_start(s, err));
    s->open_ms = kt_os_now_ms() - start;
    kt_times_opened(s);
    return KT_OK;
}

kt_session *kt_session_new(const kt_options_run *options) {
    kt_session *s = calloc(1, sizeof *s);
    if (!s) kt_out_of_memory(sizeof *s);
    s->options = *options;
    snprintf(s->device_name, sizeof s->device_name, "cpu");
    return s;
}

kt_status kt_session_open(
    const kt_options_run *options, kt_session **out, kt_buf *report, kt_err *err) {
    kt_session *s = kt_session_new(options);
    *out = NULL;
    kt_diag diag;
    kt_diag_init(&diag, &s->model_arena);
    kt_status status = open_all(s, &diag, err);
    if (report) kt_diag_print(&diag, report);
    if (status != KT_OK) {
        kt_session_close(s);
        return status;
    }
    *out = s;
    return KT_OK;
}

void kt_session_close(kt_session *s) {
    if (!s) return;
    if (s->device_thread) kt_os_thread_join(s->device_thread);
    if (s->tokenizer_thread) kt_os_thread_join(s->tokenizer_thread);
    if (s->backend) s->backend->table->close(s->backend);
    kt_dump_close(s->dump);
    kt_compiler_close(s->compiler);
    kt_gpu_close(s->gpu);
    if (s->trace) fclose(s->trace);
    kt_pool_close(s->pool);
    kt_tokenizer_close(s->tokenizer);
    if (s->model_open) kt_model_close(&s->model);
    kt_arena_deinit(&s->plan_arena);
    kt_arena_deinit(&s->model_arena);
    free(s);
}

int kt_session_items(const kt_session *s) {
    return s->context.n_items;
}

kt_str kt_session_item_title(const kt_session *s, int item) {
    return s->context.items[item].title;
}

const char *kt_session_device(const kt_session *s) {
    return s->device_name;
}

void kt_session_print_profile(const kt_session *s, kt_buf *out) {
    kt_profile_print(&s->profile, s->plan, out);
}
