//! A bar on a terminal, nothing anywhere else.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Hidden unless stderr is a terminal and somebody wants to look.
pub fn bar(steps: u64, what: &'static str, show: bool) -> ProgressBar {
    // indicatif itself hides a bar whose stream is no terminal.
    let target = if show {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(steps), target);
    let style = ProgressStyle::with_template("{msg:12} [{wide_bar}] {pos}/{len} {elapsed}");
    if let Ok(style) = style {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(what);
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}
