using System.Runtime.InteropServices;

namespace CharLm;

/// <summary>Lets OpenMP's idle threads sleep instead of spin.</summary>
/// <remarks>
/// libtorch and lightning_attn bring a thread pool each. A pool that spins while it waits takes the cores that the
/// other one needs, and where other programs want them too, training becomes many times slower.
/// </remarks>
internal static partial class OpenMpEnvironment
{
    private const string WaitPolicy = "OMP_WAIT_POLICY";
    private const string SpinCount = "GOMP_SPINCOUNT";

    /// <summary>
    /// To be called before libtorch is loaded; does nothing where the user has chosen, and outside of Linux.
    /// </summary>
    public static void PreferSleeping()
    {
        if (OperatingSystem.IsLinux()
            && Environment.GetEnvironmentVariable(WaitPolicy) is null
            && Environment.GetEnvironmentVariable(SpinCount) is null)
        {
            // Environment.SetEnvironmentVariable does not reach the environment that native libraries read.
            _ = SetNativeVariable(WaitPolicy, "passive", overwrite: 0);
        }
    }

    [LibraryImport("libc", EntryPoint = "setenv", StringMarshalling = StringMarshalling.Utf8)]
    private static partial int SetNativeVariable(string name, string value, int overwrite);
}
