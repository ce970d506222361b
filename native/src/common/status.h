// Status of a call, and the message that lattn_last_error() returns.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/platform.h"
#include "lightning_attn.h"

namespace lattn {

constexpr std::size_t kMessageBytes = 1024;

struct [[nodiscard]] Status {
    lattn_status code = LATTN_OK;
    bool ok() const { return code == LATTN_OK; }
};

inline Status ok() {
    return {};
}

// Stores the formatted message as this thread's last error and returns `code`.
LATTN_PRINTF_LIKE(2, 3) Status error(lattn_status code, const char* format, ...);

const char* last_error();

// Keeps last_error() as it is, whatever fails while this lives: for what a call tries before it takes another way.
class LastErrorKept {
public:
    LastErrorKept();
    ~LastErrorKept();
    LastErrorKept(const LastErrorKept&) = delete;
    LastErrorKept& operator=(const LastErrorKept&) = delete;

private:
    char message_[kMessageBytes];
};

} // namespace lattn

#define LATTN_RETURN_IF_ERROR(expression)                                          \
    do {                                                                           \
        if (::lattn::Status status_ = (expression); !status_.ok()) return status_; \
    } while (0)
