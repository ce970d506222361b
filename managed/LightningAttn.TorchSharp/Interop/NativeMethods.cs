using System.Runtime.InteropServices;

namespace LightningAttn.Interop;

/// <summary>The exports of lightning_attn that the managed layer calls.</summary>
internal static unsafe partial class NativeMethods
{
    internal const string Library = "lightning_attn";

    static NativeMethods() => NativeLibraryLoader.Register();

    [LibraryImport(Library)]
    internal static partial nint lattn_build_info();

    [LibraryImport(Library)]
    internal static partial nint lattn_last_error();

    [LibraryImport(Library)]
    internal static partial int lattn_describe(SupportQuery* query, byte* buffer, ulong bufferBytes);

    [LibraryImport(Library)]
    internal static partial int lattn_forward_workspace_size(ForwardParams* parameters, ulong* bytes);

    [LibraryImport(Library)]
    internal static partial int lattn_backward_workspace_size(BackwardParams* parameters, ulong* bytes);

    [LibraryImport(Library)]
    internal static partial int lattn_forward(ForwardParams* parameters);

    [LibraryImport(Library)]
    internal static partial int lattn_backward(BackwardParams* parameters);

    [LibraryImport(Library)]
    internal static partial int lattn_decode(DecodeParams* parameters);

    [LibraryImport(Library)]
    internal static partial int lattn_gated_norm_backward_workspace_size(
        GatedNormBackwardParams* parameters, ulong* bytes);

    [LibraryImport(Library)]
    internal static partial int lattn_gated_norm_forward(GatedNormForwardParams* parameters);

    [LibraryImport(Library)]
    internal static partial int lattn_gated_norm_backward(GatedNormBackwardParams* parameters);

    [LibraryImport(Library)]
    internal static partial int lattn_activate(ActivationParams* parameters);

    [LibraryImport(Library)]
    internal static partial int lattn_fork_stream(int deviceIndex, nint stream, nint* side);

    [LibraryImport(Library)]
    internal static partial int lattn_join_stream(int deviceIndex, nint stream, nint side);

    [LibraryImport(Library)]
    internal static partial int lattn_multiprocessor_count(int deviceIndex, int* count);

    [LibraryImport(Library)]
    internal static partial int lattn_synchronize(int deviceIndex);
}
