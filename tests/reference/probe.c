// What the product makes of pictures and texts, line by line, for the scripts beside this file.
// Made by `make build/tests/reference/probe`; run it at the top of the tree.
//
//   probe folder FOLDER TOKENIZER VOCAB
//       makes a model folder with 2.6's picture constants
//   probe pixels FOLDER cpu|cuda LONGEST FILTER SLICES
//       reads paths of pictures; a path followed by a tab and another path dumps the pixels there
//       writes: views patches h w [h w] sha(photo) sha(pixels) sha(cells)
//   probe views SIDE PATCH SLICES TABLE
//       reads: width height
//       writes: overview h w, grid cols rows, tile h w, views, patches, SHA-256 of the position ids
//   probe buckets TABLE MOST
//       writes for n = 1 .. MOST a line with n buckets
//   probe prompts FOLDER LONGEST SLICES branches|joint
//       reads, with tabs between: width, height (0, 0: no picture), shared text, questions; in
//       texts
//       "\n", "\t", "\r" and a doubled backslash stand for themselves
//       writes a line for each prompt: ids; picture rows are -1, -2, ...
//   probe decode
//       reads paths; writes: w h orientation sha(rgb as stored)
//   probe tokens TOKENIZER
//       reads: s or p (special tokens are found, or plain text), tab, text in hex
//       writes: ids
//
// A line "error MESSAGE" stands for what failed.
#include "tests/probe.h"
#include "loader/picture.h"
#include "runtime/base/hash.h"
#include "runtime/base/log.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_MAX_BYTES = 1 << 20 };

static char line[LINE_MAX_BYTES];

static bool next_line(void) {
    if (!fgets(line, sizeof line, stdin)) return false;
    line[strcspn(line, "\r\n")] = '\0';
    return true;
}

// Messages may have several lines; the first one says it.
static void put_error(const kt_err *err) {
    printf("error %.*s\n", (int)strcspn(err->text, "\n"), err->text);
}

static int number(const char *text) {
    char *end;
    long value = strtol(text, &end, 10);
    if (*end || end == text || value < INT32_MIN || value > INT32_MAX) {
        fprintf(stderr, "probe: '%s' is no number\n", text);
        exit(2);
    }
    return (int)value;
}

static int fail(const kt_err *err) {
    fprintf(stderr, "probe: %s\n", err->text);
    return 2;
}

// ---- commands

static int run_folder(char **arg) {
    kt_err err = {0};
    return probe_folder(arg[0], arg[1], number(arg[2]), &err) == KT_OK ? 0 : fail(&err);
}

static int run_pixels(char **arg) {
    kt_err err = {0};
    kt_session *session = NULL;
    probe_settings settings = {.folder = arg[0],
        .device = strcmp(arg[1], "cuda") == 0 ? KT_DEVICE_CUDA : KT_DEVICE_CPU,
        .longest = number(arg[2]),
        .filter = arg[3],
        .slices = number(arg[4])};
    if (probe_open(&settings, &session, &err) != KT_OK) return fail(&err);
    while (next_line()) {
        probe_picture p;
        char *dump = strchr(line, '\t');
        if (dump) *dump++ = '\0';
        if (probe_pixels(session, line, dump, &p, &err) == KT_OK) {
            printf("%" PRId64 " %" PRId64, p.views, p.patches);
            for (int64_t i = 0; i < p.targets; i++)
                printf(" %" PRId32 " %" PRId32, p.target[i][0], p.target[i][1]);
            printf(" %s %s %s\n", p.photo, p.pixels, p.cells);
        } else {
            put_error(&err);
        }
        fflush(stdout);
    }
    kt_session_close(session);
    return 0;
}

static void put_views(const kt_picture_params *params, int width, int height) {
    kt_arena arena = {0};
    kt_err err = {0};
    kt_picture_views v;
    if (kt_picture_slice(params, height, width, &arena, &v, &err) == KT_OK) {
        bool is_cut = v.grid_cols > 0;
        char hex[65];
        kt_hash_hex(kt_hash_bytes(v.position, 4 * (size_t)v.n_patches), hex);
        printf("%d %d %d %d %d %d %d %" PRId64 " %s\n", v.target[0][0], v.target[0][1], v.grid_cols,
            v.grid_rows, is_cut ? v.size[1][0] * params->patch : 0,
            is_cut ? v.size[1][1] * params->patch : 0, v.n_views, v.n_patches, hex);
    } else {
        put_error(&err);
    }
    kt_arena_deinit(&arena);
}

static int run_views(char **arg) {
    kt_picture_params params = {.scheme = KT_PICTURE_MINICPM_V,
        .side = number(arg[0]),
        .patch = number(arg[1]),
        .slices = number(arg[2]),
        .table = number(arg[3]),
        .queries = 64,
        .mean = {0.5f, 0.5f, 0.5f},
        .std = {0.5f, 0.5f, 0.5f}};
    while (next_line()) {
        char *height = strchr(line, ' ');
        if (!height) return 2;
        *height++ = '\0';
        put_views(&params, number(line), number(height));
    }
    return 0;
}

static int run_buckets(char **arg) {
    int table = number(arg[0]), most = number(arg[1]);
    int32_t *out = calloc((size_t)most, sizeof *out);
    if (!out) return 2;
    for (int n = 1; n <= most; n++) {
        kt_picture_buckets(n, table, out);
        for (int i = 0; i < n; i++) printf("%s%" PRId32, i ? " " : "", out[i]);
        printf("\n");
    }
    free(out);
    return 0;
}

static int run_prompts(char **arg) {
    kt_err err = {0};
    kt_session *session = NULL;
    probe_settings settings = {.folder = arg[0],
        .device = KT_DEVICE_CPU,
        .longest = number(arg[1]),
        .filter = "lanczos",
        .slices = number(arg[2]),
        .joint = strcmp(arg[3], "joint") == 0};
    if (probe_open(&settings, &session, &err) != KT_OK) return fail(&err);
    while (next_line()) {
        kt_buf out = {0};
        if (probe_prompts(session, line, &out, &err) == KT_OK)
            printf("%s", out.at);
        else
            put_error(&err);
        kt_buf_deinit(&out);
        fflush(stdout);
    }
    kt_session_close(session);
    return 0;
}

static int run_decode(char **arg) {
    (void)arg;
    while (next_line()) {
        kt_image image;
        kt_err err = {0};
        char hex[65];
        kt_image_limits limits = {.pixels = (int64_t)1 << 27};
        if (kt_image_open(line, &limits, false, &image, &err) == KT_OK) {
            size_t bytes = 3 * (size_t)image.width * (size_t)image.height;
            kt_hash_hex(kt_hash_bytes(image.rgb, bytes), hex);
            printf("%d %d %d %s\n", image.width, image.height, image.orientation, hex);
        } else {
            put_error(&err);
        }
        kt_image_deinit(&image);
        fflush(stdout);
    }
    return 0;
}

// Hex digits to bytes, in place.
static size_t from_hex(char *text) {
    size_t n = strlen(text) / 2;
    for (size_t i = 0; i < n; i++) {
        char pair[3] = {text[2 * i], text[2 * i + 1], '\0'};
        text[i] = (char)strtol(pair, NULL, 16);
    }
    return n;
}

static int run_tokens(char **arg) {
    kt_tokenizer *tokenizer;
    kt_err err = {0};
    if (kt_tokenizer_open(arg[0], &tokenizer, &err) != KT_OK) return fail(&err);
    while (next_line()) {
        kt_arena arena = {0};
        kt_ids ids = {0};
        bool special = line[0] == 's';
        size_t n = line[0] && line[1] ? from_hex(line + 2) : 0;
        kt_str text = {line + 2, n};
        if (kt_tokenizer_encode(tokenizer, &arena, text, special, &ids, &err) == KT_OK) {
            for (size_t i = 0; i < ids.n; i++) printf("%s%" PRId32, i ? " " : "", ids.at[i]);
            printf("\n");
        } else {
            put_error(&err);
        }
        kt_arena_deinit(&arena);
    }
    kt_tokenizer_close(tokenizer);
    return 0;
}

typedef struct command_row {
    const char *name;
    int n_args;
    int (*run)(char **arg);
} command_row;

static const command_row commands[] = {
    {"folder", 3, run_folder},
    {"pixels", 5, run_pixels},
    {"views", 4, run_views},
    {"buckets", 2, run_buckets},
    {"prompts", 4, run_prompts},
    {"decode", 0, run_decode},
    {"tokens", 1, run_tokens},
};

int main(int argc, char **argv) {
    kt_log_set_level(KT_LOG_WARN);
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (argc >= 2 && strcmp(argv[1], commands[i].name) == 0 && argc == 2 + commands[i].n_args)
            return commands[i].run(argv + 2);
    fprintf(stderr, "probe: folder, pixels, views, buckets, prompts, decode or tokens; see the "
                    "comment of probe.c\n");
    return 2;
}
