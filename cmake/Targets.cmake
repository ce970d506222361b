# The managed half as targets: what build.sh and build.ps1 call, and what works the same without them.
#
#   managed       builds the solution
#   managed-test  runs its tests
#   run-sample    runs samples/CharLm
#   pack          makes the NuGet packages, with the native libraries that were built
#   gpu-package   packs tests, benchmark and samples for a GPU machine without .NET (Linux)
#
# Arguments for the program that is run come in the environment variable LATTN_ARGS, separated by ASCII 31.
# TorchBackend in the environment chooses the libtorch, as MSBuild reads it from there.

find_program(LATTN_DOTNET dotnet HINTS "$ENV{DOTNET_ROOT}" "$ENV{HOME}/.dotnet" DOC ".NET SDK")
if(NOT LATTN_DOTNET)
    message(STATUS ".NET: none, the managed targets are left out")
    return()
endif()

# lattn_add_dotnet_target(name arguments... [PASS_ARGUMENTS]): PASS_ARGUMENTS appends LATTN_ARGS.
function(lattn_add_dotnet_target name)
    cmake_parse_arguments(PARSE_ARGV 1 option PASS_ARGUMENTS "" "")
    add_custom_target(${name}
        COMMAND ${CMAKE_COMMAND} -DPASS_ARGUMENTS=${option_PASS_ARGUMENTS}
            -P ${PROJECT_SOURCE_DIR}/cmake/RunDotnet.cmake -- ${LATTN_DOTNET} ${option_UNPARSED_ARGUMENTS}
        WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
        USES_TERMINAL VERBATIM)
    add_dependencies(${name} lightning_attn)
endfunction()

set(solution LightningAttn.TorchSharp.sln)
lattn_add_dotnet_target(managed build ${solution} -c Release --nologo)
lattn_add_dotnet_target(managed-test test --solution ${solution} -c Release PASS_ARGUMENTS)
lattn_add_dotnet_target(run-sample run -c Release --project samples/CharLm -- PASS_ARGUMENTS)

add_custom_target(pack
    COMMAND ${CMAKE_COMMAND} -DDOTNET=${LATTN_DOTNET} -DSOURCE_DIR=${PROJECT_SOURCE_DIR}
        -P ${PROJECT_SOURCE_DIR}/cmake/Pack.cmake
    USES_TERMINAL VERBATIM)
add_dependencies(pack lightning_attn)

if(LATTN_RID MATCHES "^linux-")
    add_custom_target(gpu-package
        COMMAND ${PROJECT_SOURCE_DIR}/scripts/gpu-package.sh --built
        WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
        USES_TERMINAL VERBATIM)
    add_dependencies(gpu-package lightning_attn)
    foreach(program lattn_gpu_tests lattn_compare)
        if(TARGET ${program})
            add_dependencies(gpu-package ${program})
        endif()
    endforeach()
endif()
