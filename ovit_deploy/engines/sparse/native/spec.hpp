// What the caller hands over, as plain C; everything is copied from it.
#pragma once

#include <cstdint>

struct Range {  // of uint8 values: (q - zero_point) * scale
    float scale = 0.0f;
    int32_t zero_point = 0;
};

struct LinearSpec {  // either weight or integers are given
    int32_t out, in;
    const float *weight, *bias;
    const int8_t *integers;
    const float *scale;
    Range input;
};

struct NormSpec {
    int32_t features;
    const float *weight, *bias;
    float epsilon;
};

struct BlockSpec {
    NormSpec norm1, norm2;
    LinearSpec qkv, proj, fc1, fc2;
    int32_t heads, activation;
    float scale;
    Range query, key, probabilities, value;  // all or none
};

struct ModelSpec {
    int32_t channels, height, width, patch, prefix, features, average;
    const float *prefix_tokens, *position;  // [prefix][features], [patches][features]
};
