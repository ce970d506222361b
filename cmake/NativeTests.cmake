# The native tests, all of them run by ctest.

find_package(GTest)
# For a cross compiler there is no package of it: Debian's googletest has the sources.
set(LATTN_GTEST_SOURCES /usr/src/googletest CACHE PATH "GoogleTest's sources, for a cross-built library")
if(NOT GTest_FOUND AND CMAKE_CROSSCOMPILING AND EXISTS ${LATTN_GTEST_SOURCES}/CMakeLists.txt)
    set(BUILD_GMOCK OFF)
    set(INSTALL_GTEST OFF)
    add_subdirectory(${LATTN_GTEST_SOURCES} ${PROJECT_BINARY_DIR}/googletest EXCLUDE_FROM_ALL SYSTEM)
    set(GTest_FOUND TRUE)
endif()

# lattn_discover_tests(target): its tests, each of which ctest runs in a process of its own; under an emulator, where
# starting one takes some tenths of a second, all of them in one.
include(GoogleTest)
function(lattn_discover_tests target)
    if(CMAKE_CROSSCOMPILING)
        add_test(NAME ${target} COMMAND ${target})
        set_tests_properties(${target} PROPERTIES TIMEOUT 900)
    else()
        gtest_discover_tests(${target} DISCOVERY_MODE PRE_TEST DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 300)
    endif()
endfunction()

# lattn_compile_tests(target): quickly, since most of what the tests do is to call the library.
function(lattn_compile_tests target)
    lattn_compile_options(${target})
    if(NOT MSVC)
        target_compile_options(${target} PRIVATE $<$<CONFIG:Release>:-O1>)
    endif()
    target_precompile_headers(${target} PRIVATE
        <gtest/gtest.h> <algorithm> <cmath> <functional> <map> <random> <string> <vector>)
endfunction()

# lattn_link_as_program(target): a program that the tests run. On Windows it finds the library only in its own folder.
function(lattn_link_as_program target)
    if(WIN32)
        set_target_properties(${target} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${LATTN_OUTPUT_DIR}$<0:>")
    endif()
    if(MINGW)
        target_link_options(${target} PRIVATE -static)
    endif()
endfunction()

# lattn_place_beside_library(target): for machines with a GPU. A cross-compiled one is built on demand.
function(lattn_place_beside_library target)
    set_target_properties(${target} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${LATTN_OUTPUT_DIR}$<0:>")
    if(CMAKE_CROSSCOMPILING)
        set_target_properties(${target} PROPERTIES EXCLUDE_FROM_ALL ON)
    endif()
endfunction()

file(GLOB test_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/native/tests/*.cpp)
if(GTest_FOUND AND test_sources)
    add_executable(lattn_tests ${test_sources})
    target_include_directories(lattn_tests PRIVATE ${PROJECT_SOURCE_DIR}/native/src ${PROJECT_SOURCE_DIR}/native/tests)
    target_link_libraries(lattn_tests PRIVATE lightning_attn GTest::gtest)
    lattn_compile_tests(lattn_tests)
    lattn_link_as_program(lattn_tests)
    lattn_discover_tests(lattn_tests)
elseif(test_sources)
    message(WARNING "GoogleTest was not found: the native tests are left out. Debian, Ubuntu: apt-get install "
        "libgtest-dev; vcpkg: vcpkg install gtest")
endif()

# CUDA kernels on the CPU: native/tests/gpu_emulator stands in for native/src/cuda/ptx.
set(with_emulator FALSE)
if(GTest_FOUND AND LATTN_CUDA_FOUND AND CMAKE_SYSTEM_NAME STREQUAL "Linux")
    set(with_emulator TRUE)
    set(emulator ${PROJECT_SOURCE_DIR}/native/tests/gpu_emulator)
    file(GLOB emulator_tests CONFIGURE_DEPENDS ${emulator}/*_test.cpp)
    file(GLOB emulator_sources CONFIGURE_DEPENDS ${emulator}/*.cpp)
    list(REMOVE_ITEM emulator_sources ${emulator_tests})

    # Compiles kernels for the emulator.
    function(lattn_use_emulator target)
        target_include_directories(${target} PRIVATE
            ${PROJECT_SOURCE_DIR}/native/include ${PROJECT_SOURCE_DIR}/native/src ${PROJECT_SOURCE_DIR}/native/tests)
        target_include_directories(${target} SYSTEM PRIVATE ${LATTN_CUDA_INCLUDE})
        lattn_compile_options(${target})
        target_compile_options(${target} PRIVATE "SHELL:-iquote ${emulator}"
            "SHELL:-iquote ${PROJECT_SOURCE_DIR}/native/src/cuda" "SHELL:-include ${emulator}/cuda_on_host.h"
            -Wno-unknown-pragmas # nvcc's
            -U_FORTIFY_SOURCE) # whose longjmp() does not change stacks
    endfunction()

    add_library(lattn_emulator OBJECT ${emulator_sources})
    set_target_properties(lattn_emulator PROPERTIES POSITION_INDEPENDENT_CODE ON)
    lattn_use_emulator(lattn_emulator)

    add_executable(lattn_emulator_tests ${emulator_tests})
    lattn_use_emulator(lattn_emulator_tests)
    target_compile_options(lattn_emulator_tests PRIVATE $<$<CONFIG:Release>:-O1>) # as the driver below
    target_link_libraries(lattn_emulator_tests PRIVATE lattn_emulator GTest::gtest_main)
    lattn_discover_tests(lattn_emulator_tests)

    # A driver that launches on the emulator, as libcuda.so.1 in a folder of its own.
    add_library(lattn_emulated_driver SHARED ${emulator}/driver/libcuda.cpp)
    # All kernels: at -O3 they take three times as long to compile and run no faster, since the emulator is what runs.
    set_source_files_properties(${emulator}/driver/libcuda.cpp PROPERTIES COMPILE_OPTIONS $<$<CONFIG:Release>:-O1>)
    lattn_use_emulator(lattn_emulated_driver)
    target_link_libraries(lattn_emulated_driver PRIVATE lattn_emulator)
    set(emulated_driver ${PROJECT_BINARY_DIR}/emulated_driver)
    set_target_properties(lattn_emulated_driver PROPERTIES
        CXX_VISIBILITY_PRESET default OUTPUT_NAME cuda SUFFIX .so.1 LIBRARY_OUTPUT_DIRECTORY ${emulated_driver})
endif()

# The CUDA kernels on a GPU, through the C ABI; without a GPU the same tests run on host memory. The program lies beside
# the library and finds it there, also in the package for GPU machines.
if(GTest_FOUND AND LATTN_CUDA_FOUND)
    file(GLOB gpu_test_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/native/tests/gpu/*.cpp)
    add_executable(lattn_gpu_tests ${gpu_test_sources} ${PROJECT_SOURCE_DIR}/native/src/common/platform.cpp)
    target_include_directories(lattn_gpu_tests PRIVATE ${PROJECT_SOURCE_DIR}/native/src
        ${PROJECT_SOURCE_DIR}/native/tests)
    target_include_directories(lattn_gpu_tests SYSTEM PRIVATE ${LATTN_CUDA_INCLUDE})
    target_link_libraries(lattn_gpu_tests PRIVATE lightning_attn GTest::gtest_main ${CMAKE_DL_LIBS})
    lattn_compile_tests(lattn_gpu_tests)
    lattn_link_as_program(lattn_gpu_tests)
    lattn_place_beside_library(lattn_gpu_tests)
    set_target_properties(lattn_gpu_tests PROPERTIES BUILD_WITH_INSTALL_RPATH ON INSTALL_RPATH "$ORIGIN")
    if(NOT CMAKE_CROSSCOMPILING)
        lattn_discover_tests(lattn_gpu_tests)
    endif()

    # The same on the emulated driver: every kernel from the C ABI down. What takes long there is left out, and what is
    # about segments and the grid runs in one of the two types, which share all of that code. ctest starts them first.
    if(with_emulator)
        function(lattn_add_emulated_test name filter)
            add_test(NAME emulated.${name} COMMAND lattn_gpu_tests "--gtest_filter=${filter}")
            set_tests_properties(emulated.${name} PROPERTIES TIMEOUT 900 COST 1000 FAIL_REGULAR_EXPRESSION "SKIPPED"
                ENVIRONMENT "LD_LIBRARY_PATH=${emulated_driver};LATTN_REQUIRE_CUDA=1")
        endfunction()
        set(general "*Sanitize.*cuda*:*DecodeStep.*cuda*:*DecodeTokens.*cuda*:*GatedNorm.*cuda*:*Activation.*cuda*")
        lattn_add_emulated_test(general "${general}:*SideStream.*cuda*-*WhileItIsRecorded*")
        set(too_long "*TheSameCall*:*SegmentsOfEveryHeadSize*:*SumsThatFillTheGpu*")
        lattn_add_emulated_test(hopper.bfloat16 "*Hopper*cuda_bfloat16-${too_long}")
        lattn_add_emulated_test(hopper.float16
            "*Hopper*cuda_float16-${too_long}:*SameBits*:*AloneAndInABatch*:*ManySegments*")
        lattn_add_emulated_test(packed "*Varlen.*cuda_bfloat16_hopper:*Varlen.Pool*cuda_float16_hopper")
    endif()
endif()

# What the library needs of the machine and what it shows to it.
if((CMAKE_SYSTEM_NAME STREQUAL "Linux" OR MINGW) AND NOT LATTN_SANITIZE)
    add_test(NAME library.symbols
        COMMAND ${CMAKE_COMMAND} -DLIBRARY=$<TARGET_FILE:lightning_attn> -DOBJDUMP=${CMAKE_OBJDUMP}
            -DHEADER=${PROJECT_SOURCE_DIR}/native/include/lightning_attn.h -DMAX_GLIBC=2.34
            -P ${PROJECT_SOURCE_DIR}/cmake/CheckSymbols.cmake)
endif()

add_test(NAME sources.platform
    COMMAND ${CMAKE_COMMAND} -DNATIVE=${PROJECT_SOURCE_DIR}/native -P ${PROJECT_SOURCE_DIR}/cmake/CheckPlatform.cmake)

if(LATTN_CUDA_FOUND)
    add_executable(lattn_kernels ${PROJECT_SOURCE_DIR}/native/tools/lattn_kernels.cpp)
    target_link_libraries(lattn_kernels PRIVATE lightning_attn)
    lattn_compile_options(lattn_kernels)
    lattn_link_as_program(lattn_kernels)
    if(UNIX)
        add_test(NAME library.fatbins
            COMMAND ${PROJECT_SOURCE_DIR}/scripts/check-fatbins.sh $<TARGET_FILE:lattn_kernels>
                ${PROJECT_BINARY_DIR}/cuda ${LATTN_CUDA_BIN})
        set_tests_properties(library.fatbins PROPERTIES COST 500)
    endif()
    # Opens the libraries that it compares, so it links to none.
    add_executable(lattn_compare ${PROJECT_SOURCE_DIR}/native/tools/lattn_compare.cpp
        ${PROJECT_SOURCE_DIR}/native/tests/gpu/cuda_device.cpp ${PROJECT_SOURCE_DIR}/native/src/common/platform.cpp)
    target_include_directories(lattn_compare PRIVATE ${PROJECT_SOURCE_DIR}/native/include
        ${PROJECT_SOURCE_DIR}/native/src ${PROJECT_SOURCE_DIR}/native/tests)
    target_include_directories(lattn_compare SYSTEM PRIVATE ${LATTN_CUDA_INCLUDE})
    target_link_libraries(lattn_compare PRIVATE ${CMAKE_DL_LIBS})
    lattn_compile_options(lattn_compare)
    lattn_link_as_program(lattn_compare)
    lattn_place_beside_library(lattn_compare)
    if(with_emulator)
        add_test(NAME emulated.compare
            COMMAND lattn_compare one=$<TARGET_FILE:lightning_attn> other=$<TARGET_FILE:lightning_attn>
                forward:1,1,65 varlen:3,1,100,random,states varlen:2,1,70,skewed,none
                --calls 1 --samples 1 --pause 0)
        set_tests_properties(emulated.compare PROPERTIES TIMEOUT 300
            ENVIRONMENT "LD_LIBRARY_PATH=${emulated_driver}"
            PASS_REGULAR_EXPRESSION "forward.*same bits.*random,states.*same bits.*skewed,none.*same bits")
    endif()
    # What the library hands to the driver is what nvcc made, whichever way it was embedded.
    if(LATTN_FATBIN_DIR)
        set(fatbins ${LATTN_FATBIN_DIR})
    else()
        set(fatbins ${PROJECT_BINARY_DIR}/cuda)
    endif()
    add_test(NAME library.images
        COMMAND ${CMAKE_COMMAND} -DFATBINS=${fatbins} -DIMAGES=${PROJECT_BINARY_DIR}/images
            -P ${PROJECT_SOURCE_DIR}/cmake/CheckImages.cmake --
            ${CMAKE_CROSSCOMPILING_EMULATOR} $<TARGET_FILE:lattn_kernels>)
endif()
