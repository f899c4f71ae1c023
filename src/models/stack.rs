//! Progressive stacking: a deep model that begins with a shallow one's layers (Gong et al. 2019, "Efficient training of BERT by
//! progressively stacking").

use super::{Config, Model, ModelError};

impl Model {
    /// The same with `depth` layers, of which layer `i` is the file's layer `i` modulo their number. An ALBERT repeats the one
    /// layer that it has.
    ///
    /// # Errors
    /// No layers, more than there may be, or an ALBERT that has several.
    pub fn stack(mut self, depth: usize) -> Result<Self, ModelError> {
        let place = self.place.clone();
        let refuse = |reason: String| ModelError::Depth { place, depth, reason };
        let layers = match &mut self.config {
            Config::Gpt2(config) => &mut config.n_layer,
            Config::Bert(config) => &mut config.num_hidden_layers,
            Config::DistilBert(config) => &mut config.n_layers,
            Config::Electra(config) => &mut config.num_hidden_layers,
            Config::Albert(config) if config.num_hidden_groups == 1 => &mut config.num_hidden_layers,
            Config::Albert(_) => return Err(refuse("it goes with a model all of whose layers share their parameters".into())),
        };
        self.layers.get_or_insert(*layers);
        *layers = depth;
        self.config.check().map_err(refuse)?;
        Ok(self)
    }
}

/// The name that a file of `layers` layers has for a parameter: the number after `layer` or `h` modulo `layers`.
pub(super) fn stored_layer(name: &str, layers: usize) -> String {
    let mut parts: Vec<_> = name.split('.').map(str::to_owned).collect();
    let number = parts.iter().position(|part| part == "layer" || part == "h").map_or(usize::MAX, |at| at + 1);
    if let Some(Ok(layer)) = parts.get(number).map(|part| part.parse::<usize>()) {
        parts[number] = (layer % layers).to_string();
    }
    parts.join(".")
}
