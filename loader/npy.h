// NumPy's .npy files: one array behind a short header. Reads and writes format versions 1 and 2.
//
// Read are little-endian numbers (f4 f2 i8 i4 i2 i1 u4 u2 u1) in C order with at most KT_MAX_RANK
// axes; everything else is refused with what to do about it. A header is checked against the file's
// size before elements are read, each where it is wanted, so a file may be larger than memory. Any
// thread; one kt_npy by one thread.
// Source: NumPy enhancement proposal 1, "A simple file format for NumPy arrays".
#ifndef KT_LOADER_NPY_H
#define KT_LOADER_NPY_H

#include "runtime/base/dtype.h"
#include "runtime/base/os.h"

enum { KT_NPY_HEADER_MAX = 65536 + 12 }; // bytes before the data; NumPy writes 128

// What a header says.
typedef struct kt_npy_head {
    kt_dtype dtype;
    int rank;
    int64_t shape[KT_MAX_RANK];
    int64_t n;          // elements
    int64_t data_bytes; // of all of them
    int64_t data_at;    // where they begin
} kt_npy_head;

typedef struct kt_npy {
    kt_os_file *file;
    const char *path; // lent
    kt_npy_head head;
} kt_npy;

// Reads the header in `start`, the first bytes of a file of `file_bytes` (KT_NPY_HEADER_MAX of them
// or all). `name` stands for the file in messages. Errors: EFORMAT.
kt_status kt_npy_parse(kt_str start, int64_t file_bytes, const char *name, kt_npy_head *out,
    kt_err *err) KT_MUST_CHECK;
// Opens a file and reads its header. `path` must live as long. Errors: EFILE, EFORMAT.
kt_status kt_npy_open(const char *path, kt_npy *out, kt_err *err) KT_MUST_CHECK;
void kt_npy_close(kt_npy *npy); // a zeroed one is fine
// Elements `first` to `first + n` as they are stored. Errors: EFILE.
kt_status kt_npy_read(
    const kt_npy *npy, int64_t first, int64_t n, void *out, kt_err *err) KT_MUST_CHECK;
// The same as numbers; integers beyond 2^53 are rounded. `out`: n doubles.
kt_status kt_npy_read_f64(
    const kt_npy *npy, int64_t first, int64_t n, double *out, kt_err *err) KT_MUST_CHECK;

// Elements of any dtype that a .npy file can hold as numbers.
void kt_npy_to_f64(kt_dtype dtype, const void *from, int64_t n, double *out);
// Can a file hold it: all but bf16 and the eight-bit floats.
bool kt_npy_holds(kt_dtype dtype);
// Writes a whole file (version 1), replacing what is there. Errors: EFILE.
kt_status kt_npy_write(const char *path, kt_dtype dtype, int rank, const int64_t *shape,
    const void *data, kt_err *err) KT_MUST_CHECK;
// "[3, 5]"
void kt_npy_print_shape(int rank, const int64_t *shape, kt_buf *out);

#endif
