using System.Reflection;
using System.Runtime.InteropServices;
using System.Text;
using TorchSharp;

namespace LightningAttn.Interop;

/// <summary>
/// Finds and checks the native library. Order: the file named by LATTN_NATIVE_LIBRARY and no other, if that is set;
/// else runtimes/&lt;rid&gt;/native beside this assembly, the assembly's own folder, the application's folder, and last
/// the search of the operating system.
/// </summary>
internal static unsafe class NativeLibraryLoader
{
    internal const string OverrideVariable = "LATTN_NATIVE_LIBRARY";

    /// <summary>LATTN_ABI_VERSION of the header that Structs.cs mirrors.</summary>
    internal const uint AbiVersion = 6;

    private const string UseSameRelease = "use the library of the same release.";

    private static readonly Lock s_gate = new();
    private static nint s_handle;

    internal static string FileName =>
        OperatingSystem.IsWindows() ? "lightning_attn.dll"
        : OperatingSystem.IsMacOS() ? "liblightning_attn.dylib"
        : "liblightning_attn.so";

    /// <summary>linux-x64, win-x64, ...: RuntimeInformation gives that of the distribution on some.</summary>
    internal static string RuntimeIdentifier
    {
        get
        {
            string system = OperatingSystem.IsWindows() ? "win" : OperatingSystem.IsMacOS() ? "osx" : "linux";
            return $"{system}-{RuntimeInformation.ProcessArchitecture.ToString().ToLowerInvariant()}";
        }
    }

    // An assembly takes one resolver; a type initialiser is what runs exactly once.
    static NativeLibraryLoader() =>
        NativeLibrary.SetDllImportResolver(typeof(NativeLibraryLoader).Assembly, Resolve);

    /// <summary>Makes sure that this assembly's imports are resolved here.</summary>
    internal static void Register()
    {
    }

    private static nint Resolve(string name, Assembly assembly, DllImportSearchPath? searchPath)
    {
        if (name == NativeMethods.Library)
        {
            lock (s_gate)
            {
                return s_handle != 0 ? s_handle : s_handle = Load(Candidates(), Environment.GetEnvironmentVariable);
            }
        }

        // LibTorchSharp lies where TorchSharp finds it, which need not be where this assembly lies.
        return NativeLibrary.TryLoad(name, typeof(torch).Assembly, searchPath, out nint handle) ? handle : 0;
    }

    /// <summary>The files to try, in order, when no override is set.</summary>
    internal static IReadOnlyList<string> Candidates()
    {
        string application = AppContext.BaseDirectory;
        string location = typeof(NativeLibraryLoader).Assembly.Location;
        string beside = location.Length > 0 ? Path.GetDirectoryName(location)! : application;
        string packaged = Path.Combine("runtimes", RuntimeIdentifier, "native", FileName);
        return new[]
        {
            Path.Combine(beside, packaged),
            Path.Combine(beside, FileName),
            Path.Combine(application, packaged),
            Path.Combine(application, FileName),
        }.Distinct().ToArray();
    }

    /// <summary>Loads the first candidate that exists, or throws with everything that was tried.</summary>
    internal static nint Load(IReadOnlyList<string> candidates, Func<string, string?> environment)
    {
        var tried = new StringBuilder();
        string? chosen = environment(OverrideVariable);
        if (!string.IsNullOrEmpty(chosen))
        {
            if (TryLoad(chosen, tried, out nint handle))
            {
                return handle;
            }

            throw NotFound(tried, $"{OverrideVariable} is set, so nothing else was tried.");
        }

        foreach (string candidate in candidates)
        {
            if (TryLoad(candidate, tried, out nint handle))
            {
                return handle;
            }
        }

        if (NativeLibrary.TryLoad(FileName, out nint found))
        {
            CheckAbi(found, FileName);
            return found;
        }

        tried.Append("\n  ").Append(FileName).Append(": not found by the operating system's own search");
        throw NotFound(tried, $"To use a library elsewhere, set {OverrideVariable} to its path.");
    }

    private static bool TryLoad(string path, StringBuilder tried, out nint handle)
    {
        handle = 0;
        if (!File.Exists(path))
        {
            tried.Append("\n  ").Append(path).Append(": no such file");
            return false;
        }

        try
        {
            handle = NativeLibrary.Load(path);
        }
        catch (Exception error) when (error is DllNotFoundException or BadImageFormatException)
        {
            tried.Append("\n  ").Append(path).Append(": ").Append(error.Message);
            return false;
        }

        CheckAbi(handle, path);
        return true;
    }

    private static DllNotFoundException NotFound(StringBuilder tried, string hint) => new(
        $"The native library of LightningAttn.TorchSharp was not found for {RuntimeIdentifier}. Tried:{tried}\n"
        + $"Add the package LightningAttn.TorchSharp.runtime.{RuntimeIdentifier}, or in the repository run "
        + "'./build.sh build' (Linux) or './build.ps1 build' (Windows). " + hint);

    private static void CheckAbi(nint handle, string path)
    {
        if (!NativeLibrary.TryGetExport(handle, "lattn_abi_version", out nint versionExport)
            || !NativeLibrary.TryGetExport(handle, "lattn_struct_size", out nint sizeExport))
        {
            throw new LightningAttnException(
                $"{path} is not the native library of LightningAttn.TorchSharp: it lacks lattn_abi_version.");
        }

        uint version = ((delegate* unmanaged<uint>)versionExport)();
        if (version != AbiVersion)
        {
            throw new LightningAttnException(
                $"{path} has ABI version {version}, this assembly needs {AbiVersion}: {UseSameRelease}");
        }

        var structSize = (delegate* unmanaged<byte*, ulong>)sizeExport;
        CheckSize<View>("lattn_view");
        CheckSize<StateView>("lattn_state_view");
        CheckSize<StatesView>("lattn_states_view");
        CheckSize<Problem>("lattn_problem");
        CheckSize<Pool>("lattn_pool");
        CheckSize<ForwardParams>("lattn_forward_params");
        CheckSize<BackwardParams>("lattn_backward_params");
        CheckSize<DecodeParams>("lattn_decode_params");
        CheckSize<SupportQuery>("lattn_support_query");
        CheckSize<GatedNorm>("lattn_gated_norm");
        CheckSize<GatedNormForwardParams>("lattn_gated_norm_forward_params");
        CheckSize<GatedNormBackwardParams>("lattn_gated_norm_backward_params");
        CheckSize<ActivationParams>("lattn_activation_params");

        void CheckSize<T>(string name)
            where T : unmanaged
        {
            ulong native;
            fixed (byte* text = Encoding.ASCII.GetBytes(name + '\0'))
            {
                native = structSize(text);
            }

            if (native != (ulong)sizeof(T))
            {
                throw new LightningAttnException(
                    $"{path}: {name} has {native} bytes there and {sizeof(T)} here: {UseSameRelease}");
            }
        }
    }
}
