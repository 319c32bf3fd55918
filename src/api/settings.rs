//! `configure`: the settings in the units of the public API.

use crate::{
    format::Errors,
    message::StoreFormat,
    settings::{self, Settings},
};
use napi_derive::napi;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// The settings, in the units of the public API. As an argument: those that are to be changed.
#[napi(object)]
pub struct SettingsValues {
    /// The folder of the session files.
    pub store_dir: Option<String>,
    /// Milliseconds.
    pub persist_interval_ms: Option<f64>,
    /// Milliseconds.
    pub cleanup_grace_ms: Option<f64>,
    /// Milliseconds.
    pub kill_after_ms: Option<f64>,
    /// Milliseconds.
    pub pipe_grace_ms: Option<f64>,
    /// Bytes.
    pub max_line_bytes: Option<f64>,
    /// Bytes.
    pub max_run_bytes: Option<f64>,
    /// Bytes, of each end.
    pub max_stderr_bytes: Option<f64>,
    /// Milliseconds; 0 for none.
    pub max_silence_ms: Option<f64>,
    /// Milliseconds; 0 for none.
    pub max_run_ms: Option<f64>,
    /// `auto`, `module` or `full`.
    pub errors: Option<String>,
    /// `module` or `ui`.
    pub store_format: Option<String>,
}

/// Sets what is given.
pub(super) fn set<T>(setting: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *setting = value;
    }
}

/// A time in milliseconds.
pub(super) fn millis(ms: Option<f64>) -> Option<Duration> {
    ms.map(|ms| Duration::from_millis(ms as u64))
}

/// How much is told of errors; none for `auto`.
pub(super) fn errors_named(name: &str) -> Option<Errors> {
    match name {
        "module" => Some(Errors::Module),
        "full" => Some(Errors::Full),
        _ => None,
    }
}

/// In which form answers are stored.
fn format_named(name: &str) -> StoreFormat {
    if name == "ui" { StoreFormat::Ui } else { StoreFormat::Module }
}

/// Changes settings; the caller has checked the values. Returns those in force.
#[napi(catch_unwind)]
pub fn configure(change: SettingsValues) -> SettingsValues {
    let bytes = |bytes: Option<f64>| bytes.map(|bytes| bytes as usize);
    let settings = settings::change(|settings| {
        if let Some(dir) = change.store_dir {
            settings.store_dir = Some(PathBuf::from(dir));
        }
        set(&mut settings.persist_interval, millis(change.persist_interval_ms));
        set(&mut settings.cleanup_grace, millis(change.cleanup_grace_ms));
        set(&mut settings.kill_after, millis(change.kill_after_ms));
        set(&mut settings.pipe_grace, millis(change.pipe_grace_ms));
        set(&mut settings.max_line_bytes, bytes(change.max_line_bytes));
        set(&mut settings.max_run_bytes, bytes(change.max_run_bytes));
        set(&mut settings.max_stderr_bytes, bytes(change.max_stderr_bytes));
        set(&mut settings.max_silence, millis(change.max_silence_ms));
        set(&mut settings.max_run, millis(change.max_run_ms));
        set(&mut settings.errors, change.errors.as_deref().map(errors_named));
        set(&mut settings.store_format, change.store_format.as_deref().map(format_named));
    });
    let errors = match settings.errors {
        None => "auto",
        Some(Errors::Module) => "module",
        Some(Errors::Full) => "full",
    };
    let store_format = match settings.store_format {
        StoreFormat::Module => "module",
        StoreFormat::Ui => "ui",
    };
    let millis = |duration: Duration| Some(duration.as_millis() as f64);
    let bytes = |bytes: usize| Some(bytes as f64);
    SettingsValues {
        store_dir: settings.store_dir.as_ref().map(|dir| dir.to_string_lossy().into_owned()),
        persist_interval_ms: millis(settings.persist_interval),
        cleanup_grace_ms: millis(settings.cleanup_grace),
        kill_after_ms: millis(settings.kill_after),
        pipe_grace_ms: millis(settings.pipe_grace),
        max_line_bytes: bytes(settings.max_line_bytes),
        max_run_bytes: bytes(settings.max_run_bytes),
        max_stderr_bytes: bytes(settings.max_stderr_bytes),
        max_silence_ms: millis(settings.max_silence),
        max_run_ms: millis(settings.max_run),
        errors: Some(errors.to_owned()),
        store_format: Some(store_format.to_owned()),
    }
}

/// The store in force: the configured one, else the one that the caller brings.
pub(super) fn store_dir(settings: &Settings, default: &str) -> PathBuf {
    settings.store_dir.clone().unwrap_or_else(|| Path::new(default).to_owned())
}
