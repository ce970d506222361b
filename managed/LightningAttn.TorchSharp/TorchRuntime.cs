using System.ComponentModel;
using System.Diagnostics;
using System.Runtime.InteropServices;
using System.Text;
using LightningAttn.Interop;
using TorchSharp;

namespace LightningAttn;

/// <summary>
/// Runs TorchSharp on the libtorch of a Python PyTorch installation, for machines that have PyTorch and not the native
/// packages of TorchSharp.
/// </summary>
public static class TorchRuntime
{
    /// <summary>The environment variable that names the folder of libtorch.</summary>
    private const string FolderVariable = "LATTN_TORCH_LIB";

    /// <summary>GLIBCXX version that libLibTorchSharp.so of TorchSharp 0.107 needs: GCC 13.</summary>
    private const string NeededGlibcxx = "GLIBCXX_3.4.32";

    private const string AskPython = "import os, torch; print(os.path.join(os.path.dirname(torch.__file__), 'lib'))";

    private static readonly Lock s_gate = new();
    private static string? s_folder;

    /// <summary>
    /// In the order in which each finds its dependencies already loaded; the CUDA ones only exist in CUDA builds.
    /// </summary>
    private static IReadOnlyList<string> Libraries =>
        OperatingSystem.IsWindows()
            ? ["c10.dll", "torch_cpu.dll", "c10_cuda.dll", "torch_cuda.dll", "torch.dll"]
            : OperatingSystem.IsMacOS()
                ? ["libc10.dylib", "libtorch_cpu.dylib", "libtorch.dylib"]
                : ["libc10.so", "libtorch_cpu.so", "libc10_cuda.so", "libtorch_cuda.so", "libtorch.so"];

    private static string CpuLibrary => Libraries[1];

    private static string SharpLibrary =>
        OperatingSystem.IsWindows() ? "LibTorchSharp.dll"
        : OperatingSystem.IsMacOS() ? "libLibTorchSharp.dylib"
        : "libLibTorchSharp.so";

    /// <summary>
    /// Loads libtorch and TorchSharp's native library into the process, and initialises CUDA if that libtorch was built
    /// for it and a GPU is there. To be called before anything else of TorchSharp is used; a second call for the same
    /// folder does nothing. The application must not reference a TorchSharp-cpu or TorchSharp-cuda package.
    /// </summary>
    /// <param name="path">The folder with libtorch, <c>.../torch/lib</c>, or the folder above it. When null: the
    /// environment variable LATTN_TORCH_LIB; when that is empty too, <c>python3</c> is asked where its torch lies.
    /// </param>
    /// <returns>The folder that libtorch was loaded from.</returns>
    /// <exception cref="DllNotFoundException">No libtorch was found, or a library could not be loaded; the message
    /// lists what was tried and what to do.</exception>
    /// <exception cref="InvalidOperationException">Another libtorch was loaded before by this method.</exception>
    public static string Load(string? path = null)
    {
        lock (s_gate)
        {
            if (s_folder is not null && path is null)
            {
                return s_folder;
            }

            string folder = FindFolder(path, Environment.GetEnvironmentVariable(FolderVariable), FolderFromPython);
            if (s_folder is not null)
            {
                return s_folder == folder
                    ? s_folder
                    : throw new InvalidOperationException(
                        $"libtorch was loaded from {s_folder} before; a process can have one libtorch, not also that "
                        + $"of {folder}.");
            }

            bool cuda = LoadLibraries(folder);
            if (cuda)
            {
                // False on a machine without a GPU, where this libtorch serves the CPU.
                torch.TryInitializeDeviceType(DeviceType.CUDA);
            }

            return s_folder = folder;
        }
    }

    /// <summary>The folder of libtorch: the given one, else the environment's, else Python's.</summary>
    internal static string FindFolder(string? path, string? environment, Func<(string? Folder, string Report)> python)
    {
        if (!string.IsNullOrEmpty(path))
        {
            return FolderWithin(path) ?? throw Missing($"{Full(path)} (the argument 'path')");
        }

        if (!string.IsNullOrEmpty(environment))
        {
            return FolderWithin(environment) ?? throw Missing($"{Full(environment)} ({FolderVariable})");
        }

        (string? folder, string report) = python();
        return (folder is null ? null : FolderWithin(folder)) ?? throw Missing(report);
    }

    private static string? FolderWithin(string path)
    {
        string full = Full(path);
        return new[] { full, Path.Combine(full, "lib"), Path.Combine(full, "torch", "lib") }
            .FirstOrDefault(folder => File.Exists(Path.Combine(folder, CpuLibrary)));
    }

    private static string Full(string path) => Path.TrimEndingDirectorySeparator(Path.GetFullPath(path));

    private static DllNotFoundException Missing(string tried) => new(
        $"No libtorch ({CpuLibrary}) was found in: {tried}. Install PyTorch for python3 (pip install torch), or name "
        + $"its folder torch/lib in the environment variable {FolderVariable} or in the argument 'path'.");

    private static (string? Folder, string Report) FolderFromPython()
    {
        string program = OperatingSystem.IsWindows() ? "python" : "python3";
        var start = new ProcessStartInfo(program, ["-c", AskPython])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        try
        {
            using Process process = Process.Start(start)!;
            Task<string> error = process.StandardError.ReadToEndAsync();
            string output = process.StandardOutput.ReadToEnd().Trim();
            process.WaitForExit();
            return process.ExitCode == 0
                ? (output, $"{output} (asked {program})")
                : (null, $"{program}, which says: {error.Result.Trim().Split('\n')[^1]}");
        }
        catch (Win32Exception error)
        {
            return (null, $"{program}, which could not be started: {error.Message}");
        }
    }

    private static bool LoadLibraries(string folder)
    {
        bool cuda = false;
        foreach (string name in Libraries)
        {
            string file = Path.Combine(folder, name);
            bool optional = name.Contains("cuda", StringComparison.Ordinal);
            if (optional && !File.Exists(file))
            {
                continue;
            }

            LoadLibrary(file, folder);
            cuda |= optional;
        }

        LoadLibrary(FindSharpLibrary(), folder);
        return cuda;
    }

    private static void LoadLibrary(string file, string folder)
    {
        try
        {
            NativeLibrary.Load(file);
        }
        catch (Exception error) when (error is DllNotFoundException or BadImageFormatException)
        {
            throw new DllNotFoundException(Explain(file, folder, error.Message), error);
        }
    }

    /// <summary>What the loader said, and what is known to cure it.</summary>
    internal static string Explain(string file, string folder, string loaderMessage)
    {
        var text = new StringBuilder($"{file} could not be loaded: {loaderMessage}");
        if (loaderMessage.Contains("GLIBCXX", StringComparison.Ordinal))
        {
            text.Append(
                $"\nTorchSharp needs {NeededGlibcxx}, the libstdc++ of GCC 13 (Debian 13, Ubuntu 24.04, Fedora 38 or "
                + "newer). Debian 12 and Ubuntu 22.04 have an older one: install libstdc++6 of a newer release.");
        }
        else if (OperatingSystem.IsLinux())
        {
            text.Append($"\nStart the program with LD_LIBRARY_PATH={folder}, so that the libraries find each other.");
        }

        return text.ToString();
    }

    private static string FindSharpLibrary()
    {
        string location = typeof(torch).Assembly.Location;
        string beside = location.Length > 0 ? Path.GetDirectoryName(location)! : AppContext.BaseDirectory;
        string packaged = Path.Combine("runtimes", NativeLibraryLoader.RuntimeIdentifier, "native", SharpLibrary);
        string[] candidates =
        [
            Path.Combine(beside, SharpLibrary),
            Path.Combine(beside, packaged),
            Path.Combine(AppContext.BaseDirectory, SharpLibrary),
            Path.Combine(AppContext.BaseDirectory, packaged),
        ];
        return candidates.FirstOrDefault(File.Exists) ?? throw new DllNotFoundException(
            $"TorchSharp's own native library was not found. Tried:\n  {string.Join("\n  ", candidates.Distinct())}\n"
            + "It comes with the package TorchSharp; publish the application for this platform's runtime identifier.");
    }
}
