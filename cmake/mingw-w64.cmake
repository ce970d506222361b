# Toolchain file: the Windows library cross-compiled on Linux (Debian, Ubuntu: g++-mingw-w64-x86-64-posix).

set(CMAKE_SYSTEM_NAME Windows)
set(CMAKE_SYSTEM_PROCESSOR x86_64)
set(CMAKE_C_COMPILER x86_64-w64-mingw32-gcc-posix)
set(CMAKE_CXX_COMPILER x86_64-w64-mingw32-g++-posix)
set(CMAKE_RC_COMPILER x86_64-w64-mingw32-windres)
set(CMAKE_FIND_ROOT_PATH /usr/x86_64-w64-mingw32)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)

# Programs of the build run under Wine, tests above all: that of scripts/install-wine.sh, or one in PATH.
if(NOT DEFINED LATTN_WINE)
    execute_process(COMMAND ${CMAKE_CURRENT_LIST_DIR}/../scripts/install-wine.sh --print-program
        OUTPUT_VARIABLE wine OUTPUT_STRIP_TRAILING_WHITESPACE)
    cmake_path(GET wine PARENT_PATH wine)
    find_program(LATTN_WINE NAMES wine64 wine HINTS ${wine} DOC "Wine, for the tests of a cross-built library")
endif()
if(LATTN_WINE)
    set(CMAKE_CROSSCOMPILING_EMULATOR ${LATTN_WINE})
endif()
