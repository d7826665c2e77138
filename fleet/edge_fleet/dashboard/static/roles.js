// What a role may do; the server decides, this only spares a person buttons that would be refused.
const LADDER = ["viewer", "operator", "admin"];

export function may(me, needed) {
  return LADDER.indexOf(me?.role) >= LADDER.indexOf(needed);
}
