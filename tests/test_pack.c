// A pack is made from plans for one card with 24 SMs. Is every kernel in it that another card or
// another use of the same pipelines needs? Keys of kernels only: nothing is compiled.
#include "runtime/base/file.h"
#include "runtime/exec/session.h"
#include "tests/util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static kt_arena arena;
static const char *folder;

typedef struct key_list {
    kt_hash *at;
    size_t n, cap;
} key_list;

// One plan: what of, and for which card.
typedef struct use {
    const char *pipeline, *model, *question;
    kt_setting settings[2];
    int n_settings;
    int arch, sms, shared_kb; // shared memory that a block may have
} use;

static bool holds(const key_list *list, kt_hash key) {
    for (size_t i = 0; i < list->n; i++)
        if (memcmp(&list->at[i], &key, sizeof key) == 0) return true;
    return false;
}

// Adds the keys of a plan's kernels to `add`, and counts those that `in` (may be NULL) lacks.
static int look(const use *u, key_list *add, const key_list *in) {
    kt_options_run options = {.pipeline = u->pipeline, .model = u->model, .question = u->question};
    options.settings = u->settings;
    options.n_settings = u->n_settings;
    kt_session *session = kt_session_new(&options);
    kt_target target = {.cuda = true, .cc = u->arch, .sm_count = u->sms};
    target.smem_max = 1024 * (int64_t)u->shared_kb;
    kt_diag diag;
    kt_err err = {0};
    kt_diag_init(&diag, &session->model_arena);
    kt_status status = kt_session_read(session, &diag, &err);
    if (status == KT_OK) status = kt_session_bind(session, &diag, &err);
    if (status == KT_OK) status = kt_session_plan(session, &target, &diag, &err);
    kt_compile_request *requests = NULL;
    kt_arena tmp = {0};
    if (status == KT_OK) status = kt_cuda_requests(&tmp, session->plan, u->arch, &requests, &err);
    if (status != KT_OK) {
        kt_buf said = {0};
        kt_diag_print(&diag, &said);
        fail_msg("%s with %s: %s%s", u->pipeline, u->model, said.n ? said.at : "", err.text);
    }
    KT_ASSERT(requests);
    assert_true(session->plan->n_builds > 0);
    int missing = 0;
    for (int i = 0; i < session->plan->n_builds; i++) {
        int n_options = 0;
        const char **list = kt_options_list(requests[i].options, &tmp, u->arch, &n_options);
        kt_cache_inputs inputs = {requests[i].source, kt_device_headers, list, n_options, NULL};
        kt_hash key = kt_cache_key(&inputs);
        if (add && !holds(add, key)) KT_PUSH(&arena, add, key);
        if (!in || holds(in, key)) continue;
        missing++;
        const kt_build *build = &session->plan->builds[i];
        print_error("%s with %s for sm_%d, %d SMs needs %.*s %.*s, which is not packed:\n",
            u->pipeline, u->model, u->arch, u->sms, KT_STR_ARG(build->op->name),
            KT_STR_ARG(build->variant->name));
        for (int k = 0; k < build->n_defines; k++) print_error("  %s\n", build->defines[k]);
    }
    kt_arena_deinit(&tmp);
    kt_session_close(session);
    return missing;
}

// The pipelines that tools/dist.sh packs.
static const struct {
    const char *path, *question;
} packed[] = {{"pipelines/full.yaml", NULL}, {"pipelines/simple.yaml", NULL},
    {"pipelines/tags.yaml", NULL}, {"pipelines/chat.yaml", "1"}, {"pipelines/ids.yaml", "1"},
    {"pipelines/score.yaml", "1"}, {"pipelines/score_ids.yaml", "1"}};

enum { N_PACKED = sizeof packed / sizeof *packed };

static key_list pack_of(const char *model, int arch) {
    key_list out = {0};
    for (int i = 0; i < N_PACKED; i++) {
        use u = {packed[i].path, model, packed[i].question, .arch = arch, .sms = 24};
        u.shared_kb = 99;
        look(&u, &out, NULL);
    }
    return out;
}

// SMs and shared memory of a block, from NVIDIA's tables for each compute capability.
static const struct {
    int arch, sms, shared_kb;
    const char *card;
} cards[] = {{80, 108, 163, "A100"}, {86, 10, 99, "a small part"}, {86, 84, 99, "RTX A6000"},
    {89, 24, 99, "RTX 4060"}, {89, 58, 99, "L4"}, {89, 142, 99, "L40S"}, {90, 132, 227, "H100"},
    {120, 30, 99, "RTX 5060"}, {120, 188, 99, "RTX PRO 6000"}};

// The pipeline with most ops, as packed and as planned on the card.
static void every_card_finds_its_kernels(const char *model) {
    int missing = 0;
    for (size_t c = 0; c < sizeof cards / sizeof *cards; c++) {
        use u = {packed[0].path, model, NULL, .arch = cards[c].arch, .sms = 24, .shared_kb = 99};
        key_list pack = {0};
        look(&u, &pack, NULL);
        u.sms = cards[c].sms;
        u.shared_kb = cards[c].shared_kb;
        missing += look(&u, NULL, &pack);
    }
    assert_int_equal(missing, 0);
}

// What a user may set without another kernel being needed.
static const struct {
    const char *pipeline, *question;
    kt_setting settings[2];
    int n;
} uses[] = {
    {"pipelines/full.yaml", "What is this?", {{0}}, 0},
    {"pipelines/full.yaml", NULL, {{"mode", "joint"}, {"language", "ja"}}, 2},
    {"pipelines/full.yaml", NULL, {{"image.slices", "1"}, {"image.longest", "448"}}, 2},
    {"pipelines/full.yaml", NULL, {{"image.longest", "0"}, {"context", "8192"}}, 2},
    {"pipelines/simple.yaml", NULL, {{"sampler.temperature", "0"}, {"max_new", "2000"}}, 2},
    {"pipelines/simple.yaml", "What is this?", {{"sampler.top_k", "0"}, {"context", "512"}}, 2},
    {"pipelines/chat.yaml", "Hello", {{"context", "32768"}, {"max_new", "64"}}, 2},
};

static void every_use_finds_its_kernels(const char *model) {
    key_list pack = pack_of(model, 89);
    int missing = 0;
    for (size_t i = 0; i < sizeof uses / sizeof *uses; i++) {
        use u = {uses[i].pipeline, model, uses[i].question, .arch = 89, .sms = 132};
        memcpy(u.settings, uses[i].settings, sizeof u.settings);
        u.n_settings = uses[i].n;
        u.shared_kb = 99;
        missing += look(&u, NULL, &pack);
    }
    assert_int_equal(missing, 0);
}

static const char *sparse(const char *model) {
    return kt_path_join(&arena, folder, model);
}

static void cards_int4(void **state) {
    (void)state;
    every_card_finds_its_kernels(sparse("int4"));
}

static void cards_bf16(void **state) {
    (void)state;
    every_card_finds_its_kernels(sparse("bf16"));
}

static void cards_tiny(void **state) {
    (void)state;
    every_card_finds_its_kernels("models/kotaro-tiny");
}

static void uses_int4(void **state) {
    (void)state;
    every_use_finds_its_kernels(sparse("int4"));
}

static void uses_bf16(void **state) {
    (void)state;
    every_use_finds_its_kernels(sparse("bf16"));
}

static void uses_tiny(void **state) {
    (void)state;
    every_use_finds_its_kernels("models/kotaro-tiny");
}

// Another model has other kernels: the lists are not empty of meaning.
static void models_differ(void **state) {
    (void)state;
    key_list pack = pack_of("models/kotaro-tiny", 89);
    use u = {"pipelines/full.yaml", sparse("int4"), .arch = 89, .sms = 24, .shared_kb = 99};
    key_list own = {0};
    look(&u, &own, NULL);
    size_t missing = 0;
    for (size_t i = 0; i < own.n; i++) missing += !holds(&pack, own.at[i]);
    assert_true(missing > 10);
}

static int open_all(void **state) {
    (void)state;
    folder = test_folder(&arena);
    const char *build = kt_os_getenv("BUILD");
    const char *program = kt_arena_printf(&arena, "%s/fabricate", build ? build : "build");
    static const char *const models[] = {"int4", "bf16"};
    for (int i = 0; i < 2; i++) {
        const char *const argv[] = {
            program, "--model", models[i], "--sparse", "--out", sparse(models[i]), NULL};
        if (kt_os_run(argv, NULL) != 0) return -1;
    }
    return 0;
}

static int close_all(void **state) {
    (void)state;
    test_remove(folder);
    kt_arena_deinit(&arena);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cards_int4),
        cmocka_unit_test(cards_bf16),
        cmocka_unit_test(cards_tiny),
        cmocka_unit_test(uses_int4),
        cmocka_unit_test(uses_bf16),
        cmocka_unit_test(uses_tiny),
        cmocka_unit_test(models_differ),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
