// An activation and its derivative.
#pragma once

#include <cmath>

#include "common/platform.h"
#include "lightning_attn.h"

namespace lattn::cpu {

// What an element with an activation costs, exp() and all, in the multiply-adds that threads_for() counts.
constexpr double kElementCost = 20;

template <typename T>
struct Activated {
    T value;
    T derivative;

    static Activated of(lattn_activation activation, T gate) {
        if (activation == LATTN_IDENTITY) return {gate, T(1)};
        // Neither overflow nor cancellation: exp of what is not positive, and 1 - sigmoid(g) = sigmoid(-g).
        const T decay = exponential(-std::abs(gate));
        const T larger = T(1) / (T(1) + decay), smaller = decay * larger;
        const T sigmoid = gate >= 0 ? larger : smaller, complement = gate >= 0 ? smaller : larger;
        if (activation == LATTN_SIGMOID) return {sigmoid, sigmoid * complement};
        return {gate * sigmoid, sigmoid * (T(1) + gate * complement)};
    }
};

} // namespace lattn::cpu
