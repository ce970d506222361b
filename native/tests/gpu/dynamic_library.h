// Functions of a library that is opened at run time.
#pragma once

#include <stdexcept>
#include <string>

#include "common/platform.h"

namespace lattn::test {

// Every failure is a std::runtime_error that names the library, and the function that it lacks.
class DynamicLibrary {
public:
    // what: as messages call it
    DynamicLibrary(const std::string& path, const std::string& what)
        : what_(what), handle_(open_library(path.c_str())) {
        if (handle_ == nullptr) throw std::runtime_error(what_ + " cannot be opened");
    }

    template <typename Function>
    void bind(const char* name, Function& function) const {
        bind_if_present(name, function);
        if (function == nullptr) throw std::runtime_error(what_ + " has no " + name);
    }

    template <typename Function>
    void bind_if_present(const char* name, Function& function) const {
        function = reinterpret_cast<Function>(find_symbol(handle_, name));
    }

private:
    std::string what_;
    void* handle_;
};

} // namespace lattn::test
