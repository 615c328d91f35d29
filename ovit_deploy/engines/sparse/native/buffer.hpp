// Memory that vectors can be loaded from.
#pragma once

#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "vector.hpp"

template <typename T>
struct Aligned {
    using value_type = T;
    Aligned() = default;
    template <typename U>
    Aligned(const Aligned<U> &) {}
    T *allocate(size_t n) {
        if (n > SIZE_MAX / sizeof(T) - kAlignment) throw std::bad_alloc();
        const size_t bytes = (n * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
        void *p = std::aligned_alloc(kAlignment, bytes ? bytes : kAlignment);
        if (!p) throw std::bad_alloc();
        return static_cast<T *>(p);
    }
    void deallocate(T *p, size_t) { std::free(p); }
    template <typename U>
    bool operator==(const Aligned<U> &) const { return true; }
    template <typename U>
    bool operator!=(const Aligned<U> &) const { return false; }
};

template <typename T>
using Buffer = std::vector<T, Aligned<T>>;
