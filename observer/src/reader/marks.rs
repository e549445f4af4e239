//! Where the reader stands in one ring.

/// How far a ring was read, and what was stored of that.
pub(super) struct Marks<P> {
    /// The last record read for lines.
    pub(super) reached: Option<P>,
    /// The cursor of lines as it was last stored.
    pub(super) committed: Option<P>,
    /// The cursor of spans while no spans are exported: it follows what was read for lines.
    spans: Option<P>,
}

impl<P> Default for Marks<P> {
    fn default() -> Self {
        Self { reached: None, committed: None, spans: None }
    }
}

impl<P: Copy + Ord> Marks<P> {
    /// Without an exporter: where the cursor of spans goes next.
    pub(super) fn spans_follow(&mut self) -> Option<P> {
        let next = self.reached.filter(|reached| self.spans < Some(*reached))?;
        self.spans = Some(next);
        Some(next)
    }
}
