// What a core can do at most: products of factors that are in registers.
#pragma once

#include <chrono>

#include "product.hpp"

// Operations (multiplications and additions) a second; of integers those in eight bits.
template <typename Word>
double peak() {
    constexpr int chains = 12, rounds = 20000;  // more chains than a product takes cycles
    alignas(kAlignment) Word row[kLanes];
    std::fill_n(row, kLanes, Word(1));
    volatile Word unknown = 1;
    const Word w = unknown;
    double best = 1e9;
    Vector<Word> sum[chains];
#pragma GCC unroll 12
    for (int c = 0; c < chains; c++) sum[c] = all(Word(unknown));  // as if all were different
    for (int trial = 0; trial < 10; trial++) {
        const auto start = std::chrono::steady_clock::now();
        for (int i = 0; i < rounds; i++) {
            asm volatile("" ::: "memory");  // the row may have changed: nothing can be left out
            const Vector<Word> x = load(row);
#pragma GCC unroll 12
            for (int c = 0; c < chains; c++) sum[c] = add_product(sum[c], x, w);
        }
        best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
#pragma GCC unroll 12
    for (int c = 1; c < chains; c++) sum[0] += sum[c];  // in registers to the end
    unknown = sum[0][0];
    return 2.0 * (std::is_same_v<Word, float> ? 1 : kPerWord) * kLanes * chains * rounds / best;
}
