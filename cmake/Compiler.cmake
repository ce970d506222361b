# Everything that differs between compilers.

if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 12)
    message(FATAL_ERROR "lightning_attn needs g++ 12 or newer; this is ${CMAKE_CXX_COMPILER_VERSION}")
endif()

# Language level, warnings, visibility: for every target of ours.
function(lattn_compile_options target)
    target_compile_features(${target} PRIVATE cxx_std_20)
    set_target_properties(${target} PROPERTIES
        CXX_EXTENSIONS OFF
        CXX_VISIBILITY_PRESET hidden
        VISIBILITY_INLINES_HIDDEN ON
        POSITION_INDEPENDENT_CODE ON)
    if(MSVC)
        # Warnings are no errors here: nobody builds with this compiler before a user does.
        target_compile_options(${target} PRIVATE /W4 /permissive- /utf-8 /Zc:preprocessor /EHsc)
        target_compile_definitions(${target} PRIVATE _CRT_SECURE_NO_WARNINGS) # getenv and fopen are standard
    else()
        target_compile_options(${target} PRIVATE
            -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wno-sign-conversion -Werror
            $<$<CONFIG:Release>:-O3> -fno-math-errno)
        if(LATTN_SANITIZE)
            target_compile_options(${target} PRIVATE -fsanitize=address,undefined -fno-sanitize-recover=undefined
                -fno-omit-frame-pointer)
            target_link_options(${target} PRIVATE -fsanitize=address,undefined)
        endif()
    endif()
endfunction()

# lattn_isa_options(target isa): instruction set of the CPU kernels.
function(lattn_isa_options target isa)
    if(MSVC)
        set(avx2 /arch:AVX2)
        set(avx512 /arch:AVX512)
        target_compile_options(${target} PRIVATE /fp:contract ${${isa}})
    else()
        set(avx2 -mavx2 -mfma -mf16c -mtune=haswell)
        set(avx512 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c -mtune=skylake-avx512
            -mprefer-vector-width=512)
        if(NOT CMAKE_BUILD_TYPE STREQUAL "Debug")
            target_compile_options(${target} PRIVATE -O3)
        endif()
        if(MINGW AND NOT isa STREQUAL "baseline")
            # GCC does not align the stack of Windows for vectors of 32 and 64 bytes, yet moves them as if it did.
            target_compile_options(${target} PRIVATE -Wa,-muse-unaligned-vector-move)
        endif()
        target_compile_options(${target} PRIVATE -ffp-contract=fast ${${isa}})
    endif()
endfunction()

# A library that foreign processes load: it exports the C ABI alone and brings its own C++ runtime.
function(lattn_link_as_plugin target)
    if(MSVC)
        set_target_properties(${target} PROPERTIES MSVC_RUNTIME_LIBRARY "MultiThreaded$<$<CONFIG:Debug>:Debug>")
    elseif(MINGW)
        set_target_properties(${target} PROPERTIES PREFIX "")
        target_link_options(${target} PRIVATE -static)
    elseif(APPLE)
        target_link_options(${target} PRIVATE LINKER:-undefined,error)
    else()
        set(exports ${PROJECT_SOURCE_DIR}/cmake/exports.map)
        target_link_options(${target} PRIVATE LINKER:--gc-sections LINKER:-z,relro LINKER:-z,now
            LINKER:--version-script=${exports})
        set_property(TARGET ${target} APPEND PROPERTY LINK_DEPENDS ${exports})
        if(NOT LATTN_SANITIZE) # the sanitizers' runtime needs the shared C++ runtime and undefined symbols
            # libgcc stays shared: every machine with .NET has it, and a static one of GCC 12 needs glibc 2.35.
            target_link_options(${target} PRIVATE -static-libstdc++ -shared-libgcc LINKER:-z,defs)
        endif()
        # libgomp.so.1 is the one dependency beyond libc that not every machine has: it may lie beside the library.
        set_target_properties(${target} PROPERTIES BUILD_RPATH "$ORIGIN" BUILD_RPATH_USE_ORIGIN ON
            INSTALL_RPATH "$ORIGIN")
        target_link_libraries(${target} PRIVATE ${CMAKE_DL_LIBS})
    endif()
endfunction()

function(lattn_use_openmp target)
    if(MINGW) # FindOpenMP would name libgomp's DLL, which Windows does not have
        target_compile_options(${target} PRIVATE -fopenmp)
        target_link_options(${target} PRIVATE -fopenmp)
        return()
    endif()
    find_package(OpenMP COMPONENTS CXX)
    if(OpenMP_CXX_FOUND)
        target_link_libraries(${target} PRIVATE OpenMP::OpenMP_CXX)
    else()
        message(WARNING "This compiler has no OpenMP: the CPU kernels will use one thread")
    endif()
endfunction()
