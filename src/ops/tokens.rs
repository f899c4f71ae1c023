//! Tokens and labels of ELECTRA's pre-training: integers in, integers out, and no gradient.
//!
//! A row's slots are places that a generator predicts: slot s of `[B*N]` belongs to row s / N, its place is
//! `row * T + position`, and a slot whose label is [`IGNORE`] is not used.

use super::{elementwise::lower_pointwise, *};

/// Lanes of a workgroup.
const LANES: usize = 64;
/// The most slots of a row: every lane looks through them, and Mesa's software adapter ends a shader's loops after 65,535
/// turns altogether.
const MOST_SLOTS: usize = 16_384;

/// Labels that a mask hides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TokenLabels {
    /// `original [..], corrupted [..], mask [..] -> [..]`
    Replaced,
    /// `labels [..], mask [..] -> [..]`
    Hide,
}

/// What slots do to rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TokenSlots {
    /// `ids [B,T], places [B*N], used [B*N], tokens [B*N] -> [B,T]`
    Place,
    /// `labels [B,T], places [B*N], used [B*N] -> [B,T]`
    Only,
}

/// `ids` with the tokens of used slots put at their places:
/// `ids [B,T] u32, places [B*N] u32, used [B*N] u32, tokens [B*N] u32 -> [B,T]` u32.
///
/// Of several slots with the same place (places are drawn with replacement) the first counts. The reference's
/// `scatter_update` takes the mean of their ids there, which is a token that the generator did not choose. A place outside of
/// its row changes nothing.
///
/// # Errors
/// `ids` is not a matrix, or the slots are not of a number that its rows divide.
pub fn place_tokens(g: &mut dyn Recorder, ids: Tensor, places: Tensor, used: Tensor, tokens: Tensor) -> Result<Tensor, OpError> {
    record_one(g, TokenSlots::Place, &[ids, places, used, tokens])
}

/// Labels at the places of used slots, and [`IGNORE`] elsewhere:
/// `labels [B,T] u32, places [B*N] u32, used [B*N] u32 -> [B,T]` u32. For the paper's "ELECTRA 15%", whose discriminator
/// learns from the masked places only.
///
/// # Errors
/// `labels` is not a matrix, or the slots are not of a number that its rows divide.
pub fn only_places(g: &mut dyn Recorder, labels: Tensor, places: Tensor, used: Tensor) -> Result<Tensor, OpError> {
    record_one(g, TokenSlots::Only, &[labels, places, used])
}

/// The discriminator's labels: [`IGNORE`] where `mask` is 0 (padding), else 1 where the corrupted token is not the original
/// and 0 where it is (a sample may be): `original [..] u32, corrupted [..] u32, mask [..] u32 -> [..]` u32.
///
/// # Errors
/// The shapes differ.
pub fn replaced_labels(g: &mut dyn Recorder, original: Tensor, corrupted: Tensor, mask: Tensor) -> Result<Tensor, OpError> {
    record_one(g, TokenLabels::Replaced, &[original, corrupted, mask])
}

/// Labels, and [`IGNORE`] where `mask` is 0: `labels [..] u32, mask [..] u32 -> [..]` u32.
///
/// # Errors
/// The shapes differ.
pub fn hide_labels(g: &mut dyn Recorder, labels: Tensor, mask: Tensor) -> Result<Tensor, OpError> {
    record_one(g, TokenLabels::Hide, &[labels, mask])
}

impl TokenLabels {
    /// Its name in `shaders/token_labels.wgsl`.
    fn word(self) -> &'static str {
        match self {
            Self::Replaced => "replaced",
            Self::Hide => "hide",
        }
    }
}

impl Operation for TokenLabels {
    fn name(&self) -> &'static str {
        match self {
            Self::Replaced => "replaced_labels",
            Self::Hide => "hide_labels",
        }
    }
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        expect(inputs, if *self == Self::Replaced { "uuu" } else { "uu" })?;
        for (i, input) in inputs.iter().enumerate() {
            ensure(input.shape == inputs[0].shape, || {
                format!("input {i} is {}, and the first {}", input.shape, inputs[0].shape)
            })?;
        }
        Ok(vec![inputs[0].clone()])
    }
    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        lower_pointwise(cx, &kernel!("token_labels").with("FORM", self.word()))
    }
    host_reference!();
}
impl Reference for TokenLabels {
    fn run<T: Real>(&self, inputs: Vec<HostTensor<T>>, outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let (first, mask) = (inputs[0].u(), inputs[inputs.len() - 1].u());
        let label = |i: usize| match self {
            _ if mask[i] == 0 => IGNORE,
            Self::Replaced => u32::from(first[i] != inputs[1].u()[i]),
            Self::Hide => first[i],
        };
        vec![HostTensor::uints(outputs[0].shape.clone(), (0..first.len()).map(label).collect())]
    }
}

impl Operation for TokenSlots {
    fn name(&self) -> &'static str {
        match self {
            Self::Place => "place_tokens",
            Self::Only => "only_places",
        }
    }
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        expect(inputs, if *self == Self::Place { "uuuu" } else { "uuu" })?;
        let (rows, slots) = (&inputs[0].shape, inputs[1].elements());
        ensure(rows.rank() == 2 && rows.elements() > 0, || format!("rows of tokens are [B,T], not {rows}"))?;
        for input in &inputs[1..] {
            ensure(input.shape.0 == [slots], || format!("slots are [{slots}] everywhere, not {}", input.shape))?;
        }
        let rows = rows.rows();
        ensure(slots > 0 && slots % rows == 0, || format!("{slots} slots are not as many for each of {rows} rows"))?;
        ensure(slots / rows <= MOST_SLOTS, || format!("a row has {} slots; at most {MOST_SLOTS}", slots / rows))?;
        Ok(vec![inputs[0].clone()])
    }
    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        let [x, places, used] = [0, 1, 2].map(|i| cx.input(i));
        let (y, tokens) = (cx.output(0), cx.inputs.get(3).cloned());
        let (rows, width) = (x.ty.shape.rows(), x.ty.shape.width());
        let slots = places.ty.elements() / rows;
        for range in cx.row_ranges(rows, width.max(slots))? {
            let (from, to) = (x.rows(range.clone(), width), y.rows(range.clone(), width));
            let vec4 = cx.vec4(width, &[&from, &to]);
            let units_a_row = if vec4 { width / 4 } else { width };
            let units = range.len() * units_a_row;
            let [places, used] = [&places, &used].map(|t| t.rows(range.clone(), slots).read());
            let mut bindings = vec![from.read(), places, used, to.write()];
            bindings.extend(tokens.as_ref().map(|t| t.rows(range.clone(), slots).read()));
            let words = [units, units_a_row, slots, range.start * width].map(|n| n as u32);
            let kernel = kernel!("token_slots").with("VEC", vec4).with("TOKENS", tokens.is_some());
            cx.dispatch(kernel, &bindings, &words, units.div_ceil(LANES))?;
        }
        Ok(())
    }
    host_reference!();
}
impl Reference for TokenSlots {
    fn run<T: Real>(&self, inputs: Vec<HostTensor<T>>, outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let (x, places, used) = (inputs[0].u(), inputs[1].u(), inputs[2].u());
        let shape = &outputs[0].shape;
        let (width, slots) = (shape.width(), places.len() / shape.rows());
        let mut y = if *self == Self::Place { x.to_vec() } else { vec![IGNORE; x.len()] };
        // From the last to the first, so that of several slots with one place the first has its way.
        for slot in (0..places.len()).rev() {
            let place = places[slot] as usize;
            if used[slot] != IGNORE && place / width == slot / slots {
                y[place] = inputs.get(3).map_or(x[place], |tokens| tokens.u()[slot]);
            }
        }
        vec![HostTensor::uints(shape.clone(), y)]
    }
}
