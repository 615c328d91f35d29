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

typedef float Floats __attribute__((vector_size(kLanes * 4), may_alias));
typedef int32_t Ints __attribute__((vector_size(kLanes * 4), may_alias));
typedef int8_t Bytes __attribute__((vector_size(kLanes), may_alias));

// Half as long: 512-bit instructions may take twice the time of 256-bit ones, so a few tokens are worth it. Of vectors of
// other sizes nothing is gained.
constexpr bool kHalves = kLanes == 16;
typedef float HalfFloats __attribute__((vector_size(kLanes * 2), may_alias));
typedef int32_t HalfInts __attribute__((vector_size(kLanes * 2), may_alias));

template <typename V, typename T>
inline V load_as(const T *p) { return *reinterpret_cast<const V *>(p); }

inline Floats all(float x) { return x - Floats{}; }
inline Ints all(int32_t x) { return x - Ints{}; }

inline Floats load(const float *p) { return *reinterpret_cast<const Floats *>(p); }
inline Ints load(const int32_t *p) { return *reinterpret_cast<const Ints *>(p); }
inline void store(float *p, Floats x) { *reinterpret_cast<Floats *>(p) = x; }
inline void store(int32_t *p, Ints x) { *reinterpret_cast<Ints *>(p) = x; }
inline void store(float *p, HalfFloats x) { *reinterpret_cast<HalfFloats *>(p) = x; }
inline void store(int32_t *p, HalfInts x) { *reinterpret_cast<HalfInts *>(p) = x; }

inline Ints bits(Floats x) { return (Ints)x; }
inline Floats as_floats(Ints x) { return (Floats)x; }

inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }
inline Floats smaller(Floats a, Floats b) { return a < b ? a : b; }

inline Floats floats(Ints x) { return __builtin_convertvector(x, Floats); }
inline HalfFloats floats(HalfInts x) { return __builtin_convertvector(x, HalfFloats); }
inline Floats floats(Floats x) { return x; }
inline HalfFloats floats(HalfFloats x) { return x; }
inline Ints larger(Ints a, Ints b) { return a > b ? a : b; }
inline Ints smaller(Ints a, Ints b) { return a < b ? a : b; }

// 1 / x within one unit in the last place or two.
inline Floats reciprocal(Floats x) {
#if defined(__AVX512F__)
    const Floats r = (Floats)_mm512_maskz_rcp14_ps(0xffff, (__m512)x);
    return r * (2.0f - x * r);
#else
    return 1.0f / x;
#endif
}

inline Floats square_root(Floats x) {
    for (int i = 0; i < kLanes; i++) x[i] = __builtin_sqrtf(x[i]);
    return x;
}

// The nearest integers, ties to even, of |x| < 2^22: adding 1.5 * 2^23 leaves them in the low bits.
inline Ints nearest(Floats x) {
    const float magic = 12582912.0f;
    return bits(x + magic) - bits(all(magic));
}

// 2^x for x <= 0 (relative error below 3e-7): 2^n times a polynomial for the fraction in [-1/2, 1/2], whose
// coefficients are those of the Taylor series of 2^f.
inline Floats power_of_two(Floats x) {
#if defined(__AVX512F__)
    const Floats n = (Floats)_mm512_maskz_roundscale_ps(0xffff, (__m512)x, 8);
    const Floats f = x - n;
#else
    const Floats y = larger(x, all(-126.0f));
    const Ints n = nearest(y);
    const Floats f = y - floats(n);
#endif
    Floats p = all(1.5403530e-4f);
    p = p * f + 1.3333558e-3f;
    p = p * f + 9.6181291e-3f;
    p = p * f + 5.5504109e-2f;
    p = p * f + 2.4022651e-1f;
    p = p * f + 6.9314718e-1f;
    p = p * f + 1.0f;
#if defined(__AVX512F__)
    return (Floats)_mm512_maskz_scalef_ps(0xffff, (__m512)p, (__m512)n);
#else
    return as_floats(bits(p) + (n << 23));
#endif
}

constexpr float kLog2E = 1.44269504f;
inline Floats exponential(Floats x) { return power_of_two(x * kLog2E); }  // of x <= 0

// x * Phi(x), off by less than 3e-7 |x|; the error function is Eigen's quotient of polynomials
// (Eigen/src/Core/MathFunctionsImpl.h).
inline Floats gelu(Floats x) {
    const Floats z = smaller(larger(x * 0.70710678f, all(-4.0f)), all(4.0f)), square = z * z;
    Floats p = all(-2.72614225801306e-10f);
    p = p * square + 2.77068142495902e-08f;
    p = p * square - 2.10102402082508e-06f;
    p = p * square - 5.69250639462346e-05f;
    p = p * square - 7.34990630326855e-04f;
    p = p * square - 2.95459980854025e-03f;
    p = p * square - 1.60960333262415e-02f;
    Floats q = all(-1.45660718464996e-05f);
    q = q * square - 2.13374055278905e-04f;
    q = q * square - 1.68282697438203e-03f;
    q = q * square - 7.37332916720468e-03f;
    q = q * square - 1.42647390514189e-02f;
    const Floats half = x * 0.5f;
    return half + half * (z * p * reciprocal(q));
}

// 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) = x / (1 + e^-2y)
inline Floats gelu_tanh(Floats x) {
    const Floats y = 1.5957691216f * (x + 0.044715f * x * x * x);
    const Floats e = exponential(y < 0 ? y : -y);  // e^-|2y|
    return x * (y < 0 ? e : all(1.0f)) * reciprocal(1.0f + e);
}

inline Floats silu(Floats x) {
    const Floats e = exponential(x < 0 ? x : -x);
    return x * (x < 0 ? e : all(1.0f)) * reciprocal(1.0f + e);
}

inline Floats relu(Floats x) { return larger(x, Floats{}); }

// A row of inputs, times a weight, added to a sum. Integers come in words of four: unsigned bytes of the row meet
// signed bytes of the weight, exactly.
inline Floats add_product(Floats sum, Floats x, float w) { return sum + w * x; }
inline Floats add_product(Floats sum, const float *x, float w) { return add_product(sum, load(x), w); }

inline Ints add_product(Ints sum, Ints x, int32_t w) {
#if defined(__AVX512VNNI__)
    return (Ints)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)x, _mm512_set1_epi32(w));
#elif defined(__AVX2__)
    // Sums of two products of bytes do not fit in 16 bits: even and odd bytes go separately, as 16-bit numbers.
    const __m256i a = (__m256i)x, v = _mm256_set1_epi32(w);
    const __m256i even_a = _mm256_and_si256(a, _mm256_set1_epi16(255)), odd_a = _mm256_srli_epi16(a, 8);
    const __m256i even_v = _mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8), odd_v = _mm256_srai_epi16(v, 8);
    return sum + (Ints)_mm256_madd_epi16(even_a, even_v) + (Ints)_mm256_madd_epi16(odd_a, odd_v);
#else
    for (int j = 0; j < 4; j++) sum += (x >> (8 * j) & 255) * int32_t(int8_t(w >> (8 * j)));
    return sum;
#endif
}
inline Ints add_product(Ints sum, const int32_t *x, int32_t w) { return add_product(sum, load(x), w); }

inline HalfFloats add_product(HalfFloats sum, const float *x, float w) { return sum + w * load_as<HalfFloats>(x); }
#if defined(__AVX512VNNI__)
inline HalfInts add_product(HalfInts sum, const int32_t *x, int32_t w) {
    return (HalfInts)_mm256_dpbusd_epi32((__m256i)sum, load_as<__m256i>(x), _mm256_set1_epi32(w));
}
#endif

// Of activations as uint8: q = clip(round(x / scale) + zero_point, 0, 255), ties to even, as QuantizeLinear; but by a
// product with 1 / scale, so that a quotient on the border of two steps may fall on either side of it.
struct Steps {
    float inverse;  // 1 / scale
    int32_t zero_point;

    Ints operator()(Floats x) const { return smaller(larger(steps(x), all(0)), all(255)); }

    // Four rows as one of words.
    Ints operator()(Floats a, Floats b, Floats c, Floats d) const {
#if defined(__AVX512BW__)
        const __m512i low = _mm512_packs_epi32((__m512i)steps(a), (__m512i)steps(b));
        const __m512i high = _mm512_packs_epi32((__m512i)steps(c), (__m512i)steps(d));
        const __m128i transposed = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        const __m512i order = _mm512_broadcast_i32x4(transposed);
        return (Ints)_mm512_shuffle_epi8(_mm512_packus_epi16(low, high), order);
#else
        const Steps &q = *this;
        return q(a) | q(b) << 8 | q(c) << 16 | q(d) << 24;
#endif
    }

  private:
    Ints steps(Floats x) const {
        return nearest(smaller(larger(x * inverse, all(-512.0f)), all(512.0f))) + zero_point;
    }
};
