//! Tests over the whole of a template's way: properties over random templates, use at run time, drawings, imports.

mod compiled;
mod drawings;
mod properties;
mod wfformat;
