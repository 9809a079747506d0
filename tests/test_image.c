// Decoding: bytes equal to Pillow's, and an error that says why for everything else.
#include "loader/image.h"

#include "runtime/base/file.h"
#include "runtime/base/hash.h"
#include "tests/util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define IMAGES "tests/data/images/"

// stb_image alone promises neither Pillow's bytes nor orientation, nor to see all damage.
#ifdef KT_STB_ONLY
#define SKIP_IF_STB_ONLY() skip()
#else
#define SKIP_IF_STB_ONLY() (void)0
#endif

static bool has(const kt_err *err, const char *part) {
    if (strstr(err->text, part) != NULL) return true;
    print_error("message: %s\nlacks:   %s\n", err->text, part);
    return false;
}

static bool is_hash_of(const kt_image *image, const char *wanted) {
    char hex[65];
    kt_hash_hex(kt_hash_bytes(image->rgb, 3 * (size_t)image->height * (size_t)image->width), hex);
    return strncmp(hex, wanted, 32) == 0;
}

// A line of decode.txt.
typedef struct golden {
    char name[64], kind[16], stored[40], upright[40], why[16];
    int width, height, orientation;
} golden;

static bool read_golden(FILE *file, golden *g) {
    memset(g, 0, sizeof *g);
    if (fscanf(file, "%63s %15s", g->name, g->kind) != 2) return false;
    if (strcmp(g->kind, "error") == 0) return fscanf(file, "%15s", g->why) == 1;
    g->width = test_next_int(file);
    g->height = test_next_int(file);
    g->orientation = test_next_int(file);
    return fscanf(file, "%39s %39s", g->stored, g->upright) == 2;
}

static bool equals_golden(const golden *g, bool upright) {
    char path[128];
    (void)snprintf(path, sizeof path, IMAGES "%s", g->name);
    kt_image image;
    kt_err err = {0};
    if (kt_image_open(path, NULL, upright, &image, &err) != KT_OK) {
        print_error("%s: %s\n", g->name, err.text);
        return false;
    }
    bool is_turned = upright && g->orientation >= 5;
    int width = is_turned ? g->height : g->width, height = is_turned ? g->width : g->height;
    bool is_equal = image.width == width && image.height == height &&
                    image.orientation == g->orientation && strcmp(image.format, g->kind) == 0 &&
                    is_hash_of(&image, upright ? g->upright : g->stored);
    if (!is_equal)
        print_error("%s: %d x %d, orientation %d, %s: not what Pillow makes of it\n", g->name,
            image.width, image.height, image.orientation, image.format);
    kt_image_deinit(&image);
    return is_equal;
}

static bool is_refused(const golden *g) {
    char path[128];
    (void)snprintf(path, sizeof path, IMAGES "%s", g->name);
    kt_image image;
    kt_err err = {0};
    kt_status status = kt_image_open(path, NULL, true, &image, &err);
    if (status == KT_OK) print_error("%s was accepted\n", g->name);
    bool is_right = status == KT_EIMAGE && image.rgb == NULL && has(&err, path) &&
                    has(&err, strcmp(g->why, "cut") == 0 ? "is cut short" : "is a broken");
    kt_image_deinit(&image);
    return is_right;
}

static void image_equals_pillow(void **state) {
    (void)state;
    SKIP_IF_STB_ONLY();
    FILE *file = fopen(IMAGES "decode.txt", "rb");
    assert_non_null(file);
    int n_equal = 0, n_refused = 0, n_wrong = 0;
    golden g;
    while (read_golden(file, &g)) {
        if (strcmp(g.kind, "error") == 0) {
            if (is_refused(&g))
                n_refused++;
            else
                n_wrong++;
        } else if (equals_golden(&g, false) && equals_golden(&g, true)) {
            n_equal++;
        } else {
            n_wrong++;
        }
    }
    (void)fclose(file);
    print_message(
        "%d files equal Pillow's bytes, %d refused as they should be\n", n_equal, n_refused);
    assert_int_equal(n_wrong, 0);
    assert_true(n_equal >= 80);
    assert_true(n_refused >= 15);
}

// The eight files hold the same stored picture; turned by hand here, pixel by pixel.
static void image_turns_upright(void **state) {
    (void)state;
    SKIP_IF_STB_ONLY();
    for (int o = 1; o <= 8; o++) {
        char path[128];
        (void)snprintf(path, sizeof path, IMAGES "own-exif-%d.jpeg", o);
        kt_image stored, turned;
        kt_err err = {0};
        assert_int_equal(kt_image_open(path, NULL, false, &stored, &err), KT_OK);
        assert_int_equal(kt_image_open(path, NULL, true, &turned, &err), KT_OK);
        assert_int_equal(stored.orientation, o);
        int h = stored.height, w = stored.width;
        assert_int_equal(turned.height, o >= 5 ? w : h);
        assert_int_equal(turned.width, o >= 5 ? h : w);
        for (int y = 0; y < turned.height; y++)
            for (int x = 0; x < turned.width; x++) {
                // Where EXIF says that stored row 0 and column 0 are: 1 top left, 2 top right, ...
                // 8 left bottom.
                const int row[] = {y, y, h - 1 - y, h - 1 - y, x, h - 1 - x, h - 1 - x, x};
                const int col[] = {x, w - 1 - x, w - 1 - x, x, y, y, w - 1 - y, w - 1 - y};
                assert_memory_equal(turned.rgb + (size_t)3 * (size_t)(y * turned.width + x),
                    stored.rgb + (size_t)3 * (size_t)(row[o - 1] * w + col[o - 1]), 3);
            }
        kt_image_deinit(&stored);
        kt_image_deinit(&turned);
    }
}

static kt_status decode(const void *bytes, size_t n, const kt_image_limits *limits, kt_err *err) {
    kt_image image;
    kt_image_source source = {bytes, n, "upload 1"};
    kt_status status = kt_image_decode(&source, limits, true, &image, err);
    if (status != KT_OK) assert_null(image.rgb);
    kt_image_deinit(&image);
    return status;
}

static void image_says_what_is_wrong(void **state) {
    (void)state;
    kt_err err = {0};
    assert_int_equal(decode("", 0, NULL, &err), KT_EIMAGE);
    assert_true(has(&err, "'upload 1' is empty (0 bytes)"));
    assert_int_equal(decode("hello world", 11, NULL, &err), KT_EIMAGE);
    assert_true(has(&err, "not a picture"));
    assert_true(has(&err, "68 65 6c 6c 6f 20 77 6f (\"hello wo\")"));
    assert_true(has(&err, kt_image_formats()));
    assert_int_equal(decode("x", 1, NULL, &err), KT_EIMAGE);
    assert_true(has(&err, "1 bytes begin with 78 (\"x\")"));
    assert_int_equal(decode("\0\0\0\x18"
                            "ftypheic\0\0\0\0",
                         16, NULL, &err),
        KT_EIMAGE);
    assert_true(has(&err, "type HEIC"));
    assert_int_equal(decode("\0\0\0\x18"
                            "ftypavif\0\0\0\0",
                         16, NULL, &err),
        KT_EIMAGE);
    assert_true(has(&err, "type AVIF"));
    assert_int_equal(decode("II*\0\10\0\0\0", 8, NULL, &err), KT_EIMAGE);
    assert_true(has(&err, "type TIFF"));
    assert_int_equal(decode("8BPS\0\1\0\0", 8, NULL, &err), KT_EIMAGE);
    assert_true(
        has(&err, "'upload 1' is a file of type PSD, which is not read; save it as PNG or JPEG"));

    kt_image image;
    assert_int_equal(kt_image_open(IMAGES "absent.png", NULL, true, &image, &err), KT_EFILE);
    assert_true(has(&err, "there is no picture '" IMAGES "absent.png'"));
    assert_int_equal(kt_image_open("tests/data/images", NULL, true, &image, &err), KT_EFILE);
    assert_true(has(&err, "is a folder"));
    assert_null(image.rgb);
}

static void image_names_the_bytes_of_a_cut_jpeg(void **state) {
    (void)state;
    SKIP_IF_STB_ONLY();
    kt_image image;
    kt_err err = {0};
    const char *path = IMAGES "video-001.progressive.truncated.jpeg";
    assert_int_equal(kt_image_open(path, NULL, true, &image, &err), KT_EIMAGE);
    assert_true(has(&err, "ends after 7456 bytes"));
}

// However a file is cut, it never becomes half a picture.
static void image_refuses_every_prefix(void **state) {
    (void)state;
    SKIP_IF_STB_ONLY();
    static const char *const names[] = {"video-001.q50.420.jpeg",
        "video-001.q50.422.progressive.jpeg", "own-cmyk.jpeg", "own-17x3.jpeg", "basn2c16.png",
        "own-palette.png", "own-lossy.webp", "own-alpha-lossy.webp", "own-lossless.webp", "own.bmp",
        "own.tga", "own-rle.tga"};
    kt_arena arena = {0};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[128];
        kt_str file = {0};
        kt_err err = {0};
        (void)snprintf(path, sizeof path, IMAGES "%s", names[i]);
        assert_int_equal(kt_file_read(&arena, path, 1 << 20, &file, &err), KT_OK);
        assert_int_equal(decode(file.at, file.n, NULL, &err), KT_OK);
        size_t step = 1 + file.n / 300;
        for (size_t n = 0; n < file.n; n += step) {
            // TGA may end with a comment area that says nothing about the pixels.
            if (strstr(names[i], ".tga") != NULL && n + 26 >= file.n) break;
            if (decode(file.at, n, NULL, &err) == KT_EIMAGE) continue;
            fail_msg("%s: %zu of %zu bytes were taken for a picture", names[i], n, file.n);
        }
    }
    kt_arena_deinit(&arena);
}

static void image_checks_limits(void **state) {
    (void)state;
    kt_image image;
    kt_err err = {0};
    kt_image_limits limits = {.pixels = 15449};
    assert_int_equal(
        kt_image_open(IMAGES "video-001.q50.420.jpeg", &limits, true, &image, &err), KT_EIMAGE);
    assert_true(has(&err, "150 x 103 = 15450 pixels, but the limit is 15449"));
    assert_true(has(&err, "image.pixels="));
    limits.pixels = 15450;
    assert_int_equal(
        kt_image_open(IMAGES "video-001.q50.420.jpeg", &limits, true, &image, &err), KT_OK);
    kt_image_deinit(&image);
    limits.file_bytes = 3406; // the file has 3407
    assert_int_equal(
        kt_image_open(IMAGES "video-001.q50.420.jpeg", &limits, true, &image, &err), KT_EIMAGE);
    assert_true(has(&err, "3407 bytes, but the limit is 3406"));
}

// 30 bytes that promise 2^31 pixels must cost nothing; the default limit is 4096 * 4096.
static void image_refuses_bombs(void **state) {
    (void)state;
    kt_err err = {0};
    uint8_t png[33] = "\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\xff\xff\0\0\x80\x00\x08\x02\0\0\0";
    static const uint8_t sum[4] = {0x11, 0x22, 0x33, 0x44};
    memcpy(png + 29, sum, 4);
    assert_int_equal(decode(png, sizeof png, NULL, &err), KT_EIMAGE);
    static const uint8_t gif[] =
        "GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x02\x02\x44\x01\0;";
    assert_int_equal(decode(gif, sizeof gif - 1, NULL, &err), KT_EIMAGE);
    assert_true(has(&err, "65535 x 65535 = 4294836225 pixels, but the limit is 16777216"));
    static const uint8_t bmp[] =
        "BM\x46\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\0\0\x01\0\0\0\x01\0\x01\0\x18\0"
        "\0\0\0\0\x10\0\0\0\x13\x0b\0\0\x13\x0b\0\0\0\0\0\0\0\0\0\0";
    assert_int_equal(decode(bmp, sizeof bmp - 1, NULL, &err), KT_EIMAGE);
    assert_true(has(&err, "65536"));
}

// A few EXIF blocks that are wrong in themselves must only lose the orientation.
static void image_survives_broken_exif(void **state) {
    (void)state;
    kt_arena arena = {0};
    kt_str file = {0};
    kt_err err = {0};
    assert_int_equal(kt_file_read(&arena, IMAGES "own-exif-6.jpeg", 1 << 20, &file, &err), KT_OK);
    uint8_t *bytes = (uint8_t *)kt_arena_copy(&arena, file.at, file.n);
    size_t at = 0;
    while (memcmp(bytes + at, "Exif", 4) != 0) at++;
    for (size_t i = 6; i < 32; i++) {
        uint8_t old = bytes[at + i];
        bytes[at + i] = 0xff;
        assert_int_equal(decode(bytes, file.n, NULL, &err), KT_OK);
        bytes[at + i] = old;
    }
    kt_arena_deinit(&arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(image_equals_pillow),
        cmocka_unit_test(image_turns_upright),
        cmocka_unit_test(image_names_the_bytes_of_a_cut_jpeg),
        cmocka_unit_test(image_refuses_every_prefix),
        cmocka_unit_test(image_says_what_is_wrong),
        cmocka_unit_test(image_checks_limits),
        cmocka_unit_test(image_refuses_bombs),
        cmocka_unit_test(image_survives_broken_exif),
    };
    return cmocka_run_group_tests_name("image", tests, NULL, NULL);
}
