using static TorchSharp.torch;

namespace CharLm.Model;

/// <summary>What came before the tokens of a pass, for every layer: where attention reads it and moves it on.</summary>
internal interface IAttentionState
{
    /// <summary>Attention [B, N, H*E] of q, k, v [B, H, N, D] that continue the sequences of this state.</summary>
    Tensor Attend(int layer, Tensor q, Tensor k, Tensor v, Tensor decayRates);
}
