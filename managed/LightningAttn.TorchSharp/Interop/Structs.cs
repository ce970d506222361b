using System.Runtime.InteropServices;

namespace LightningAttn.Interop;

// The parameter structs of native/include/lightning_attn.h, field for field; the header's comments are the reference.
// NativeLibraryLoader compares their sizes with the library's before anything else is called.

/// <summary>lattn_view: a strided [B, H, N, X] tensor with contiguous X.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct View
{
    public nint Data;
    public long StrideB;
    public long StrideH;
    public long StrideN;
}

/// <summary>lattn_state_view: a strided [B, Hv, D, E] state.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct StateView
{
    public nint Data;
    public long StrideB;
    public long StrideH;
    public long StrideD;
    public long StrideE;
}

/// <summary>lattn_states_view: a strided [B, Hv, state_count, D, E] sequence of states.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct StatesView
{
    public nint Data;
    public long StrideB;
    public long StrideH;
    public long StrideBlock;
    public long StrideD;
    public long StrideE;
}

/// <summary>lattn_problem.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct Problem
{
    public long Batch;
    public long HeadsQk;
    public long HeadsV;
    public long Tokens;
    public long HeadDimQk;
    public long HeadDimV;
    public long BlockSize;
    public long StateCount;
    public double Scale;
    public int Dtype;
    public int DeviceType;
    public int DeviceIndex;
    public int CudaPath;
    public int AllowTf32;
    public int CuSeqlensDtype;
    public nint CuSeqlens;
}

/// <summary>lattn_pool.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct Pool
{
    public StateView States;
    public long SlotCount;
    public nint Slots;
    public nint HasInitial;
    public int StateDtype;
    public int SlotDtype;
}

/// <summary>lattn_forward_params.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct ForwardParams
{
    public ulong StructSize;
    public Problem Problem;
    public View Q;
    public View K;
    public View V;
    public nint DecayRate;
    public StateView History;
    public View Output;
    public StatesView States;
    public Pool Pool;
    public nint Workspace;
    public ulong WorkspaceBytes;
    public nint Stream;
}

/// <summary>lattn_backward_params.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct BackwardParams
{
    public ulong StructSize;
    public Problem Problem;
    public View Q;
    public View K;
    public View V;
    public nint DecayRate;
    public StateView History;
    public View GradOutput;
    public StatesView GradStates;
    public View GradQ;
    public View GradK;
    public View GradV;
    public StateView GradHistory;
    public nint GradDecayRate;
    public nint Workspace;
    public ulong WorkspaceBytes;
    public nint Stream;
}

/// <summary>lattn_decode_params.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct DecodeParams
{
    public ulong StructSize;
    public long Batch;
    public long HeadsQk;
    public long HeadsV;
    public long HeadDimQk;
    public long HeadDimV;
    public long SlotCount;
    public double Scale;
    public int Dtype;
    public int StateDtype;
    public int SlotDtype;
    public int DeviceType;
    public int DeviceIndex;
    public int Tokens;
    public int AcceptedDtype;
    public int Reserved;
    public View Q;
    public View K;
    public View V;
    public View Output;
    public nint DecayRate;
    public StateView StateIn;
    public StateView StateOut;
    public nint Slots;
    public nint Accepted;
    public nint Stream;
}

/// <summary>lattn_gated_norm.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct GatedNorm
{
    public long Batch;
    public long Heads;
    public long Tokens;
    public long HeadDim;
    public long Groups;
    public double Eps;
    public int Activation;
    public int Dtype;
    public int DeviceType;
    public int DeviceIndex;
}

/// <summary>lattn_gated_norm_forward_params.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct GatedNormForwardParams
{
    public ulong StructSize;
    public GatedNorm Norm;
    public View X;
    public View Gate;
    public nint Weight;
    public View Output;
    public nint Stream;
}

/// <summary>lattn_gated_norm_backward_params.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct GatedNormBackwardParams
{
    public ulong StructSize;
    public GatedNorm Norm;
    public View X;
    public View Gate;
    public nint Weight;
    public View GradOutput;
    public View GradX;
    public View GradGate;
    public nint GradWeight;
    public nint Workspace;
    public ulong WorkspaceBytes;
    public nint Stream;
}

/// <summary>lattn_activation_params.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct ActivationParams
{
    public ulong StructSize;
    public long Count;
    public int Activation;
    public int Dtype;
    public int DeviceType;
    public int DeviceIndex;
    public nint Input;
    public nint Grad;
    public nint Output;
    public nint Stream;
}

/// <summary>lattn_support_query.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct SupportQuery
{
    public ulong StructSize;
    public int Operation;
    public int Dtype;
    public int StateDtype;
    public int DeviceType;
    public int DeviceIndex;
    public int CudaPath;
    public int AllowTf32;
    public int Reserved;
    public long HeadDimQk;
    public long HeadDimV;
}
