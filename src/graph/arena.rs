//! The arena: which tensors share a buffer, given when each is alive.

/// A tensor's need for memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Need {
    /// Size, bytes.
    pub bytes: u64,
    /// First step that touches it.
    pub first: usize,
    /// Last step that touches it.
    pub last: usize,
}

/// A layout: for each need its buffer, and the sizes of the buffers.
pub(super) struct Layout {
    pub place: Vec<usize>,
    pub buffers: Vec<u64>,
}

/// Greedy by size (Pisarchyk and Lee, "Efficient memory management for deep neural net inference", 2020, section 5):
/// the largest need first, each into the smallest buffer that is free throughout its life.
pub(super) fn lay_out(needs: &[Need]) -> Layout {
    let mut order: Vec<_> = (0..needs.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(needs[i].bytes), needs[i].first));
    let mut place = vec![0; needs.len()];
    let mut buffers: Vec<(u64, Vec<usize>)> = Vec::new();
    for i in order {
        let need = needs[i];
        let free = |members: &[usize]| members.iter().all(|&m| needs[m].last < need.first || need.last < needs[m].first);
        let best = (0..buffers.len()).filter(|&b| free(&buffers[b].1)).min_by_key(|&b| buffers[b].0);
        match best {
            Some(b) => {
                buffers[b].1.push(i);
                place[i] = b;
            }
            None => {
                place[i] = buffers.len();
                buffers.push((need.bytes, vec![i]));
            }
        }
    }
    Layout { place, buffers: buffers.into_iter().map(|(bytes, _)| bytes).collect() }
}

#[cfg(test)]
mod tests {
    use super::{Need, lay_out};

    #[test]
    fn dead_buffers_are_reused_and_live_ones_are_not() {
        let need = |bytes, first, last| Need { bytes, first, last };
        let needs = [need(100, 0, 1), need(60, 1, 2), need(90, 2, 3), need(40, 3, 4), need(8, 0, 4)];
        let layout = lay_out(&needs);
        assert_eq!(layout.place[0], layout.place[2]);
        assert_eq!(layout.place[1], layout.place[3]);
        assert_eq!(layout.buffers, [100, 60, 8]);
        for (i, a) in needs.iter().enumerate() {
            for (j, b) in needs.iter().enumerate().skip(i + 1) {
                let together = a.first <= b.last && b.first <= a.last;
                assert!(!(together && layout.place[i] == layout.place[j]), "{i} and {j} share a buffer");
            }
        }
    }
}
