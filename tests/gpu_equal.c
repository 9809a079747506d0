// The same pictures on the CPU and on the GPU, greedy: their tokens are equal, and where they are
// not the CPU itself was undecided: its two best logits there lie no further apart than twice the
// largest difference between the two.
//
// usage: gpu_equal [PICTURE...]    without pictures: those of tests/data/scenes and examples
#include "runtime/base/file.h"
#include "runtime/base/log.h"
#include "runtime/exec/session.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PICTURES = 4096 };

static const char *pipelines[] = {"pipelines/full.yaml", "pipelines/simple.yaml"};
static const char *languages[] = {"en", "ja"};

typedef struct pair {
    kt_session *cpu, *gpu;
    const char *pipeline, *language;
} pair;

typedef struct count {
    int64_t rows, equal, ties, wrong, pictures, pictures_equal;
} count;

static kt_session *open_session(const pair *p, kt_device device, int64_t max_tokens, kt_err *err) {
    kt_setting setting = {"language", p->language};
    kt_options_run options = {.pipeline = p->pipeline,
        .device = device,
        .greedy = true,
        .max_tokens = max_tokens,
        .settings = &setting,
        .n_settings = 1};
    kt_session *session = NULL;
    if (kt_session_open(&options, &session, NULL, err) != KT_OK) return NULL;
    return session;
}

static const kt_stage *loop_of(const kt_plan *plan) {
    for (int i = 0; i < plan->n_stages; i++)
        if (plan->stages[i].loop) return &plan->stages[i];
    return NULL;
}

// Tokens of all rows after a run; -1 where none was made.
static int32_t *run(kt_session *s, const char *picture, int64_t *most, kt_err *err) {
    const kt_stage *loop = loop_of(s->plan);
    const kt_tensor *t = &s->plan->tensors[loop->loop_read];
    int32_t *out = calloc((size_t)t->bytes + 1, 1);
    *most = t->axis[1].max;
    kt_events events = {0};
    if (kt_session_run(s, &picture, 1, &events, err) != KT_OK ||
        s->backend->table->get(s->backend, loop->loop_read, 0, out, t->bytes, err) != KT_OK) {
        free(out);
        return NULL;
    }
    return out;
}

static int logits_tensor(const kt_plan *plan, int rows) {
    const kt_stage *loop = loop_of(plan);
    for (int l = 0; l < loop->n_lists; l++) {
        if (loop->lists[l].bucket != rows) continue;
        for (int i = 0; i < loop->lists[l].n_steps; i++) {
            const kt_call *call = loop->lists[l].steps[i].call;
            if (kt_str_is(call->op->name, "sample"))
                return call->ports[kt_op_port_find(call->op, KT_STR("logits"))];
        }
    }
    return -1;
}

static int bucket_of(const kt_plan *plan, int rows) {
    const kt_stage *loop = loop_of(plan);
    for (int l = 0; l < loop->n_lists; l++)
        if (loop->lists[l].bucket >= rows) return (int)loop->lists[l].bucket;
    return rows;
}

// The logits of `row` in the step that makes its token number `step`: a run that ends there.
static float *logits_at(
    const pair *p, kt_device device, const char *picture, int row, int64_t step, int64_t *v) {
    kt_err err;
    int64_t most;
    kt_session *s = open_session(p, device, step + 1, &err);
    int32_t *tokens = s ? run(s, picture, &most, &err) : NULL;
    float *out = NULL;
    if (tokens) {
        int tensor = logits_tensor(s->plan, bucket_of(s->plan, kt_session_items(s)));
        const kt_tensor *t = &s->plan->tensors[tensor];
        *v = t->axis[1].max;
        float *all = malloc((size_t)t->bytes);
        if (all && s->backend->table->get(s->backend, tensor, 0, all, t->bytes, &err) == KT_OK) {
            out = malloc(sizeof(float) * (size_t)*v);
            if (out) memcpy(out, all + row * *v, sizeof(float) * (size_t)*v);
        }
        free(all);
    }
    free(tokens);
    kt_session_close(s);
    return out;
}

// Is a difference in token number `step` of a row one at a near tie?
static bool near_tie(
    const pair *p, const char *picture, int row, int64_t step, const int32_t *ids) {
    int64_t v = 0;
    float *a = logits_at(p, KT_DEVICE_CPU, picture, row, step, &v);
    float *b = logits_at(p, KT_DEVICE_CUDA, picture, row, step, &v);
    if (!a || !b) {
        free(a);
        free(b);
        return false;
    }
    kt_value penalty = kt_value_real(1);
    (void)kt_pipeline_number(p->cpu->pipeline, "sampler.repetition_penalty", &penalty);
    double most = 0, first = -INFINITY, second = -INFINITY;
    for (int64_t i = 0; i < v; i++) {
        most = fmax(most, fabs((double)a[i] - (double)b[i]));
        double x = (double)a[i];
        for (int64_t k = 0; k < step; k++)
            if (ids[k] == i) {
                x = x > 0 ? x / penalty.r : x * penalty.r;
                break;
            }
        if (x > first) {
            second = first;
            first = x;
        } else if (x > second) {
            second = x;
        }
    }
    printf("# %s, %s %s, item %d, token %" PRId64 ": top-2 gap %.4f, largest difference %.4f\n",
        picture, p->pipeline, p->language, row, step, first - second, most);
    free(a);
    free(b);
    return first - second <= 2 * most;
}

static void compare(const pair *p, const char *picture, count *n) {
    kt_err err = {0};
    int64_t most = 0, wrong = n->wrong, ties = n->ties;
    int32_t *a = run(p->cpu, picture, &most, &err);
    int32_t *b = run(p->gpu, picture, &most, &err);
    if (!a || !b) {
        printf("# %s: %s\n", picture, err.text);
        n->wrong++;
        n->rows++;
    }
    for (int row = 0; a && b && row < kt_session_items(p->cpu); row++) {
        const int32_t *x = a + row * most, *y = b + row * most;
        int64_t step = 0;
        while (step < most && x[step] == y[step]) step++;
        n->rows++;
        if (step == most)
            n->equal++;
        else if (near_tie(p, picture, row, step, x))
            n->ties++;
        else
            n->wrong++;
    }
    n->pictures++;
    n->pictures_equal += wrong == n->wrong && ties == n->ties;
    free(a);
    free(b);
}

static int find_pictures(kt_arena *arena, const char *folder, const char **out) {
    int n = 0, found = 0;
    kt_str *names = kt_os_list(arena, folder, &n);
    for (int i = 0; i < n && found < MAX_PICTURES; i++)
        if (kt_str_ends(names[i], KT_STR(".jpg")) || kt_str_ends(names[i], KT_STR(".png")) ||
            kt_str_ends(names[i], KT_STR(".webp")))
            out[found++] = kt_path_join(arena, folder, kt_str_z(arena, names[i]));
    return found;
}

static void report(int number, const pair *p, const count *n) {
    bool ok = n->wrong == 0 && n->pictures > 0;
    printf("%s %d - %s %s: %" PRId64 " of %" PRId64 " pictures and %" PRId64 " of %" PRId64
           " texts equal, %" PRId64 " differ at a near tie, %" PRId64 " elsewhere\n",
        ok ? "ok" : "not ok", number, p->pipeline, p->language, n->pictures_equal, n->pictures,
        n->equal, n->rows, n->ties, n->wrong);
    fflush(stdout);
}

int main(int argc, char **argv) {
    static const char *pictures[MAX_PICTURES];
    kt_arena arena = {0};
    kt_err err;
    int n = 0, number = 0, failed = 0;
    if (kt_gpu_count(&err) == 0) {
        printf("1..1\nok 1 # SKIP no NVIDIA GPU: %.*s\n", (int)strcspn(err.text, "\n"), err.text);
        return 0;
    }
    for (int i = 1; i < argc && n < MAX_PICTURES; i++) pictures[n++] = argv[i];
    if (n == 0) n = find_pictures(&arena, "tests/data/scenes", pictures);
    if (n == 0) n = find_pictures(&arena, "examples", pictures);
    kt_log_set_level(KT_LOG_WARN);
    for (int i = 0; i < 2; i++)
        for (int l = 0; l < 2; l++) {
            pair p = {.pipeline = pipelines[i], .language = languages[l]};
            count c = {0};
            p.cpu = open_session(&p, KT_DEVICE_CPU, 0, &err);
            p.gpu = p.cpu ? open_session(&p, KT_DEVICE_CUDA, 0, &err) : NULL;
            if (!p.gpu) printf("# %s\n", err.text);
            for (int k = 0; k < n && p.gpu; k++) compare(&p, pictures[k], &c);
            report(++number, &p, &c);
            failed += c.wrong != 0 || c.pictures == 0;
            kt_session_close(p.cpu);
            kt_session_close(p.gpu);
        }
    printf("1..%d\n", number);
    kt_arena_deinit(&arena);
    return failed != 0;
}
