// A forward pass, a backward pass and decoding by the packages alone; ends with 1 where they disagree.
using LightningAttn;
using LightningAttn.Modules;
using TorchSharp;
using static TorchSharp.torch;

using var scope = NewDisposeScope();
random.manual_seed(1);
using var slopes = Functional.build_slope_tensor(4);

// The operators: prefill of 130 tokens against 129 tokens and one more by decoding.
var (q, k, v) = (randn(2, 4, 130, 32), randn(2, 4, 130, 32), randn(2, 4, 130, 32));
q.requires_grad_();
var (output, _) = Functional.lightning_attention(q, k, v, slopes);
output.square().mean().backward();
var gradient = q.grad!.abs().max().item<float>();

using var noGrad = no_grad();
Tensor First(Tensor x) => x.narrow(2, 0, 129);
Tensor Last(Tensor x) => x.narrow(2, 129, 1);
var (_, kv) = Functional.lightning_attention(First(q), First(k), First(v), slopes);
var cache = kv.select(2, -1).clone();
var token = Functional.linear_decode_forward(Last(q), Last(k), Last(v), cache, slopes, tensor(new[] { 0, 1 }));
var operators = Difference(token, output.select(2, 129).flatten(1));

// The layer, at once and in pieces.
using var layer = new LightningAttention(hidden_size: 96, num_heads: 6, layer_idx: 1, num_layers: 4);
using var state = layer.new_state(batch_size: 2);
var x = randn(2, 50, 96);
var pieces = cat([layer.call(x.narrow(1, 0, 49), state), layer.call(x.narrow(1, 49, 1), state)], 1);
var layers = Difference(pieces, layer.call(x));

Console.WriteLine($"{typeof(Functional).Assembly.GetName().Name} on TorchSharp {typeof(torch).Assembly.GetName().Version}");
Console.WriteLine($"forward and decode differ by {operators:0.0e+0}, layer and pieces by {layers:0.0e+0}, largest |dq| {gradient:0.0e+0}");
return operators < 1e-5 && layers < 1e-5 && gradient > 0 && float.IsFinite(gradient) ? 0 : 1;

static float Difference(Tensor a, Tensor b) => ((a - b).norm() / b.norm()).item<float>();
