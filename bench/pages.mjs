export function updatePages() {}
