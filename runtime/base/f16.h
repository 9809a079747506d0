// 16-bit floats as bits: conversion to and from f32, round to nearest even, by value and by row.
#ifndef KT_BASE_F16_H
#define KT_BASE_F16_H

#include <stddef.h>
#include <stdint.h>

float kt_f16_to_f32(uint16_t bits);
uint16_t kt_f32_to_f16(float value); // beyond 65504: infinity
float kt_bf16_to_f32(uint16_t bits);
uint16_t kt_f32_to_bf16(float value);
void kt_f16_to_f32_row(const uint16_t *in, float *out, size_t n);
void kt_f32_to_f16_row(const float *in, uint16_t *out, size_t n);

#endif
