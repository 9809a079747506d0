// The header of a .safetensors file: 8 bytes of length, JSON, then the tensors' bytes without
// holes.
//
// Everything is checked before it is believed: the length against the file, limits of the JSON (100
// MB, depth 8), names, dtypes, rank (at most 6), shape * dtype against the byte range, ranges
// inside the file, no overlap, no hole, no trailing bytes. Dtypes: F32 F16 BF16 F8_E4M3 F8_E5M2 I64
// I32 I16 I8 U8 U16 U32, and BOOL (as u8). Any thread. Source: the format's README in
// huggingface/safetensors.
#ifndef KT_LOADER_SAFETENSORS_H
#define KT_LOADER_SAFETENSORS_H

#include "loader/checkpoint.h"

enum { KT_SAFETENSORS_HEADER_MAX = 100 * 1000 * 1000 }; // bytes, as in the reference

// Reads the header of an open file. *stored (arena; in order of offset, `file` = file_index) gets
// the tensors. Errors: EFILE (reading), EFORMAT (file, tensor, both values, remedy).
kt_status kt_safetensors_read(kt_arena *arena, const kt_checkpoint_file *file, int file_index,
    kt_stored **stored, int64_t *n, kt_err *err) KT_MUST_CHECK;
// The same from the JSON text of a header; the data area begins at data_at and the file has
// file_bytes. For tests.
kt_status kt_safetensors_parse(kt_arena *arena, kt_str header, const char *path, int64_t file_bytes,
    kt_stored **stored, int64_t *n, kt_err *err) KT_MUST_CHECK;

#endif
