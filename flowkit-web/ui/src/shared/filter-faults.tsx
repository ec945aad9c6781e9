/** What is wrong with the filters of an address. It is shown in the place of the list. */

import { Link } from '../router'

export function FilterFaults({ faults, href }: { faults: string[]; href: string }) {
  return (
    <div role="alert" className="problem">
      <strong>Nothing is shown: the filter in the address is not valid</strong>
      <ul>{faults.map((fault) => <li key={fault}>{fault}</li>)}</ul>
      <p><Link href={href}>Remove all filters</Link></p>
    </div>
  )
}
