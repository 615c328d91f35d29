// Threads that wait for work together: the caller is one of them.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

class Team {
  public:
    explicit Team(int threads) {
        for (int t = 1; t < threads; t++) others_.emplace_back([this, t] { wait(t); });
    }
    ~Team() {
        {
            std::lock_guard<std::mutex> hold(mutex_);
            over_ = true;
            generation_++;
        }
        begin_.notify_all();
        for (auto &thread : others_) thread.join();
    }
    Team(const Team &) = delete;
    int size() const { return int(others_.size()) + 1; }

    // work(item, thread) for every item below `items`, on whichever thread is free.
    void each(long items, const std::function<void(long, int)> &work) {
        if (others_.empty() || items <= 1) {
            for (long i = 0; i < items; i++) work(i, 0);
            return;
        }
        {
            std::lock_guard<std::mutex> hold(mutex_);
            work_ = &work, items_ = items, next_ = 0, busy_ = int(others_.size());
            generation_++;
        }
        begin_.notify_all();
        take(0);
        while (busy_.load(std::memory_order_acquire)) std::this_thread::yield();
    }

  private:
    static constexpr int kSpins = 20000;  // looks at the generation before going to sleep, some 20 microseconds

    void take(int thread) {
        for (long i; (i = next_.fetch_add(1)) < items_;) (*work_)(i, thread);
    }
    void wait(int thread) {
        for (long seen = 0;;) {
            for (int i = 0; i < kSpins && generation_.load(std::memory_order_acquire) == seen; i++) {}
            {
                std::unique_lock<std::mutex> hold(mutex_);
                begin_.wait(hold, [&] { return generation_.load() != seen; });
                seen = generation_.load();
                if (over_) return;
            }
            take(thread);
            busy_.fetch_sub(1, std::memory_order_release);
        }
    }

    std::vector<std::thread> others_;
    std::mutex mutex_;
    std::condition_variable begin_;
    std::atomic<long> generation_{0}, next_{0};
    std::atomic<int> busy_{0};
    long items_ = 0;
    const std::function<void(long, int)> *work_ = nullptr;
    bool over_ = false;
};
