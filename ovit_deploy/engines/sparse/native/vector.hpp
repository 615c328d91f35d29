// Vectors of floats as the compiler has them, for whatever instruction set this file is compiled for, and the functions
// of them that a vision transformer takes. One source serves AVX-512, AVX2, NEON and machines with neither.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#define OVIT_LANES 16
#elif defined(__AVX2__)
#define OVIT_LANES 8
#else
#define OVIT_LANES 4
#endif

#if defined(__AVX2__)
#include <immintrin.h>
#endif

constexpr int kLanes = OVIT_LANES;  // floats in a vector
constexpr int kAlignment = 64;      // bytes, of every buffer

typedef float Floats __attribute__((vector_size(kLanes * 4)));
typedef int32_t Ints __attribute__((vector_size(kLanes * 4)));

inline Floats all(float x) { return x - Floats{}; }
inline Ints all(int32_t x) { return x - Ints{}; }

inline Floats load(const float *p) { return *reinterpret_cast<const Floats *>(p); }
inline void store(float *p, Floats x) { *reinterpret_cast<Floats *>(p) = x; }

inline Ints bits(Floats x) { return (Ints)x; }
inline Floats as_floats(Ints x) { return (Floats)x; }

inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }
inline Floats smaller(Floats a, Floats b) { return a < b ? a : b; }

inline Floats square_root(Floats x) {
    for (int i = 0; i < kLanes; i++) x[i] = __builtin_sqrtf(x[i]);
    return x;
}

// The nearest integers, ties to even, of |x| < 2^22: adding 1.5 * 2^23 leaves them in the low bits.
inline Ints nearest(Floats x) {
    const float magic = 12582912.0f;
    return bits(x + magic) - bits(all(magic));
}

// e^x for x <= 0 (relative error below 3e-7): 2^n times a polynomial for the fraction in [-1/2, 1/2], whose
// coefficients are those of the Taylor series of 2^f.
inline Floats exponential(Floats x) {
    const Floats y = larger(x * 1.44269504f, all(-126.0f));
    const Ints n = nearest(y);
    const Floats f = y - __builtin_convertvector(n, Floats);
    Floats p = all(1.5403530e-4f);
    p = p * f + 1.3333558e-3f;
    p = p * f + 9.6181291e-3f;
    p = p * f + 5.5504109e-2f;
    p = p * f + 2.4022651e-1f;
    p = p * f + 6.9314718e-1f;
    p = p * f + 1.0f;
    return as_floats(bits(p) + (n << 23));
}

// x * Phi(x) with the error function of Abramowitz and Stegun, 7.1.26 (absolute error below 1.5e-7).
inline Floats gelu(Floats x) {
    const Floats z = x * 0.70710678f;
    const Floats a = z < 0 ? -z : z;
    const Floats t = 1.0f / (a * 0.3275911f + 1.0f);
    Floats p = all(1.061405429f);
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    const Floats tail = p * t * exponential(-a * a);  // 1 - erf(a)
    return x * 0.5f * (x < 0 ? tail : 2.0f - tail);
}

// 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) = x / (1 + e^-2y)
inline Floats gelu_tanh(Floats x) {
    const Floats y = 1.5957691216f * (x + 0.044715f * x * x * x);
    const Floats e = exponential(y < 0 ? y : -y);  // e^-|2y|
    return x * (y < 0 ? e : all(1.0f)) / (1.0f + e);
}

inline Floats silu(Floats x) {
    const Floats e = exponential(x < 0 ? x : -x);
    return x * (x < 0 ? e : all(1.0f)) / (1.0f + e);
}

inline Floats relu(Floats x) { return larger(x, Floats{}); }

// sum_j a[4i + j] * w[j] added to lane i: a unsigned, w signed bytes, exact.
inline Ints add_products(Ints sum, const uint8_t *a, int32_t w) {
#if defined(__AVX512VNNI__)
    return (Ints)_mm512_dpbusd_epi32((__m512i)sum, _mm512_load_si512(a), _mm512_set1_epi32(w));
#elif defined(__AVX2__)
    // Sums of two products of bytes do not fit in 16 bits: even and odd bytes go separately, as 16-bit numbers.
    const __m256i x = _mm256_load_si256(reinterpret_cast<const __m256i *>(a)), v = _mm256_set1_epi32(w);
    const __m256i even_x = _mm256_and_si256(x, _mm256_set1_epi16(255)), odd_x = _mm256_srli_epi16(x, 8);
    const __m256i even_v = _mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8), odd_v = _mm256_srai_epi16(v, 8);
    const __m256i even = _mm256_madd_epi16(even_x, even_v), odd = _mm256_madd_epi16(odd_x, odd_v);
    return sum + (Ints)even + (Ints)odd;
#else
    int8_t parts[4];
    std::memcpy(parts, &w, 4);
    for (int i = 0; i < kLanes; i++)
        for (int j = 0; j < 4; j++) sum[i] += int32_t(a[4 * i + j]) * parts[j];
    return sum;
#endif
}
