//! `configure`: the settings in the units of the public API.

use crate::settings::{self, Settings};
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
}

/// Changes settings; the caller has checked the values. Returns those in force.
#[napi]
pub fn configure(change: SettingsValues) -> SettingsValues {
    fn set<T>(setting: &mut T, value: Option<T>) {
        if let Some(value) = value {
            *setting = value;
        }
    }
    let millis = |ms: Option<f64>| ms.map(|ms| Duration::from_millis(ms as u64));
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
    });
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
    }
}

/// The store in force: the configured one, else the one that the caller brings.
pub(super) fn store_dir(settings: &Settings, default: &str) -> PathBuf {
    settings.store_dir.clone().unwrap_or_else(|| Path::new(default).to_owned())
}
