# cmake -DNATIVE=<folder native/> -P CheckPlatform.cmake
# Which compiler and operating system a build is for is asked in native/src/common/platform.* alone; beside it in the
# ABI's header, which stands for itself, and in how the tests start a process.

cmake_minimum_required(VERSION 3.25)
set(allowed include/lightning_attn.h src/common/platform.cpp src/common/platform.h tests/child_process.cpp)
string(JOIN "|" pattern
    _MSC_VER _M_X64 __x86_64__ __GNUC__ __clang__ _WIN32 __MINGW __declspec __attribute__ __builtin_
    "dlfcn\\.h" "windows\\.h")

file(GLOB_RECURSE sources RELATIVE ${NATIVE} ${NATIVE}/*.h ${NATIVE}/*.cpp ${NATIVE}/*.cuh ${NATIVE}/*.cu)
list(LENGTH sources count)
if(count LESS 100)
    message(FATAL_ERROR "only ${count} sources in ${NATIVE}")
endif()
set(failures)
foreach(source IN LISTS sources)
    if(NOT source IN_LIST allowed)
        file(STRINGS ${NATIVE}/${source} lines REGEX "${pattern}")
        foreach(line IN LISTS lines)
            list(APPEND failures "${source}: ${line}")
        endforeach()
    endif()
endforeach()
if(failures)
    list(JOIN failures "\n " failures)
    message(FATAL_ERROR " not in src/common/platform.h:\n ${failures}")
endif()
