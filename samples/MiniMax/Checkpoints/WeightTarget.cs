using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace MiniMax.Checkpoints;

/// <summary>What a tensor of a checkpoint fills: a parameter, or the part of it that is one expert's.</summary>
/// <param name="ParameterName">Its name in the model.</param>
/// <param name="Parameter">The parameter.</param>
/// <param name="Expert">The expert; -1: the whole parameter.</param>
/// <param name="FirstRow">Of the expert's matrix.</param>
/// <param name="Rows">Of the expert's matrix, from FirstRow.</param>
internal sealed record WeightTarget(string ParameterName, Parameter Parameter, long Expert, long FirstRow, long Rows)
{
    public long[] Shape => Expert < 0 ? Parameter.shape : [Rows, Parameter.size(2)];

    /// <summary>A view of the parameter.</summary>
    public Tensor View() =>
        Expert < 0 ? Parameter.detach() : Parameter.detach().select(0, Expert).narrow(0, FirstRow, Rows);
}
