#include "common/status.h"

#include <cstdarg>
#include <cstdio>
#include <cstring>

namespace lattn {
namespace {

// A fixed buffer: reporting an error must not be able to fail.
thread_local char message[kMessageBytes];

} // namespace

Status error(lattn_status code, const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);
    return {code};
}

const char* last_error() {
    return message;
}

LastErrorKept::LastErrorKept() {
    std::memcpy(message_, message, sizeof(message));
}

LastErrorKept::~LastErrorKept() {
    std::memcpy(message, message_, sizeof(message));
}

} // namespace lattn
