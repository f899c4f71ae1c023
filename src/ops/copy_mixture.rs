//! The loss of ELECTRA's "All-Tokens MLM" (Clark et al., "ELECTRA: Pre-training text encoders as discriminators rather than
//! generators", 2020, section 3.4): a softmax over the vocabulary mixed with a copy of the input token.

use super::{
    binary_cross_entropy::{sigmoid, softplus},
    elementwise::lower_pointwise_on,
    *,
};

/// `token_losses [..], copy [..], replaced [..] -> loss [], count [1]`; the second is the number of places that count.
#[derive(Debug)]
struct CopyMixture;

/// `token_losses [..], copy [..], replaced [..], dloss [], count [1] -> dtoken_losses [..], dcopy [..]`
#[derive(Debug)]
struct CopyMixtureBackward;

/// The mean of `-log p`, nats, over the places where `replaced` is not [`IGNORE`], with
/// `p = D [the input token is the right one] + (1 - D) exp(-token_loss)` and `D = sigmoid(copy)`:
/// `token_losses [..], copy [..], replaced [..] u32 -> []`.
///
/// `token_losses` are `-log softmax` of the right token, from 0 up ([`cross_entropy_rows`]); `copy` the logits of copying;
/// `replaced` is 0 where the input token is the right one and 1 where it is another ([`replaced_labels`]). With nothing to
/// count the loss is NaN and the gradients 0.
///
/// # Errors
/// The shapes differ.
pub fn copy_mixture(g: &mut dyn Recorder, token_losses: Tensor, copy: Tensor, replaced: Tensor) -> Result<Tensor, OpError> {
    record_one(g, CopyMixture, &[token_losses, copy, replaced])
}

/// The shape rule that both have.
fn check(inputs: &[TensorType]) -> Result<(), OpError> {
    let [losses, copy, replaced] = [0, 1, 2].map(|i| &inputs[i].shape);
    ensure(losses == copy && losses == replaced, || {
        format!("the tokens' losses are {losses}, the logits of copying {copy}, and what was replaced {replaced}")
    })
}

/// `-log p` for the loss `t` of the right token and the logit `d`: the log-sum-exp of `-softplus(-d)` and `-softplus(d) - t`,
/// which differ by `d + t`.
fn loss<T: Real>(t: T, d: T, replaced: u32) -> T {
    let by_softmax = softplus(d) + t;
    match replaced {
        IGNORE => T::ZERO,
        0 => {
            let (by_copy, apart) = (softplus(-d), d + t);
            (if by_copy < by_softmax { by_copy } else { by_softmax }) - (-apart.max(-apart)).exp().ln_1p()
        }
        _ => by_softmax,
    }
}

/// The derivatives of [`loss`] by `t` and `d`. The first is the softmax's share of p; the second is
/// `sigmoid(d) - sigmoid(d + t)`, written so that it does not cancel.
fn derivatives<T: Real>(t: T, d: T, replaced: u32) -> (T, T) {
    match replaced {
        IGNORE => (T::ZERO, T::ZERO),
        0 => (sigmoid(-(d + t)), -sigmoid(-d) * sigmoid(d + t) * (T::ONE - (-t).exp())),
        _ => (T::ONE, sigmoid(d)),
    }
}

impl Operation for CopyMixture {
    fn name(&self) -> &'static str {
        "copy_mixture"
    }
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        expect(inputs, "ffu")?;
        check(inputs)?;
        Ok(vec![TensorType::f32([]), TensorType::f32([1])])
    }
    fn backward(&self, g: &mut dyn Recorder, node: &Recorded<'_>) -> Result<Vec<Option<Tensor>>, OpError> {
        let Some(dy) = node.grads[0] else { return Ok(vec![None; 3]) };
        let inputs = [node.inputs[0], node.inputs[1], node.inputs[2], dy, node.outputs[1]];
        let grads = g.record(Arc::new(CopyMixtureBackward), &inputs)?;
        Ok(vec![Some(grads[0]), Some(grads[1]), None])
    }
    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        100 * inputs[0].elements() as u64
    }
    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        let [token_losses, copy, replaced] = [0, 1, 2].map(|i| cx.input(i));
        let (mean, count) = (cx.output(0), cx.output(1));
        let losses = cx.scratch(replaced.ty.elements());
        let kernel = kernel!("copy_mixture").with("GRADIENT", false);
        let read = [token_losses, copy, replaced.clone()];
        lower_pointwise_on(cx, &kernel, &read, std::slice::from_ref(&losses), &[])?;
        counted_mean::lower(cx, [&losses, &replaced, &mean, &count], IGNORE)
    }
    host_reference!();
}
impl Reference for CopyMixture {
    fn run<T: Real>(&self, inputs: Vec<HostTensor<T>>, _outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let (tokens, copy, replaced) = (inputs[0].f(), inputs[1].f(), inputs[2].u());
        let losses = tokens.iter().zip(copy).zip(replaced).map(|((&t, &d), &replaced)| loss(t, d, replaced));
        counted_mean::reference(losses, replaced, IGNORE).into()
    }
}

impl Operation for CopyMixtureBackward {
    fn name(&self) -> &'static str {
        "copy_mixture_backward"
    }
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        expect(inputs, "ffuff")?;
        check(inputs)?;
        Ok(vec![inputs[0].clone(), inputs[1].clone()])
    }
    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        70 * inputs[0].elements() as u64
    }
    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        let kernel = kernel!("copy_mixture").with("GRADIENT", true);
        let [token_losses, copy, replaced, dloss, count] = [0, 1, 2, 3, 4].map(|i| cx.input(i));
        let written = cx.outputs.clone();
        lower_pointwise_on(cx, &kernel, &[token_losses, copy, replaced], &written, &[dloss, count])
    }
    host_reference!();
}
impl Reference for CopyMixtureBackward {
    fn run<T: Real>(&self, inputs: Vec<HostTensor<T>>, outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let factor = inputs[3].f()[0] / inputs[4].f()[0];
        let (tokens, copy, replaced) = (inputs[0].f(), inputs[1].f(), inputs[2].u());
        let (dtokens, dcopy) = tokens
            .iter()
            .zip(copy)
            .zip(replaced)
            .map(|((&t, &d), &replaced)| {
                let (by_t, by_d) = derivatives(t, d, replaced);
                // The factor is no number if nothing counts.
                if replaced == IGNORE { (by_t, by_d) } else { (by_t * factor, by_d * factor) }
            })
            .unzip();
        let shape = &outputs[0].shape;
        vec![HostTensor::floats(shape.clone(), dtokens), HostTensor::floats(shape.clone(), dcopy)]
    }
}
