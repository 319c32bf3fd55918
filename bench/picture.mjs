export function picture() { return ''; }
