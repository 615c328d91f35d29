// What one thread works on, and where its time goes.
#pragma once

#include <chrono>

#include "buffer.hpp"

struct Scratch {
    Buffer<float> normed, hidden, shares;
    Buffer<int32_t> words, partial, scores, sums;
    std::vector<double> seconds;  // by layer; empty when nobody asks

    // The time since the last call counts for a layer.
    void lap(size_t layer) {
        if (seconds.empty()) return;
        const auto now = std::chrono::steady_clock::now();
        seconds[layer] += std::chrono::duration<double>(now - since_).count();
        since_ = now;
    }
    void start() {
        if (!seconds.empty()) since_ = std::chrono::steady_clock::now();
    }

  private:
    std::chrono::steady_clock::time_point since_;
};

template <typename T>
T *at_least(Buffer<T> &buffer, size_t size) {
    if (buffer.size() < size) buffer.resize(size);
    return buffer.data();
}
