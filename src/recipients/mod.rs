//! To whom: the recipients as a stream of rows, whatever file they come from.
