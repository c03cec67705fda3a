// An identity for the exporter that may read one Batch account. docs/deploy-aks.md says how to use it.
//
//   az deployment group create --resource-group GROUP_OF_THE_ACCOUNT --template-file deploy/bicep/identity.bicep \
//     --parameters batchAccountName=NAME

@description('Name of the Batch account, in the resource group of the deployment.')
param batchAccountName string

@description('Name of the identity.')
param identityName string = 'azure-batch-exporter'

@description('Region of the identity.')
param location string = resourceGroup().location

@description('A custom role with the three permissions that are used, in place of Azure Batch Account Reader.')
param leastPrivilege bool = false

@description('OIDC issuer of an AKS cluster whose service account may use the identity. Empty: none.')
param oidcIssuerUrl string = ''

@description('Namespace of that service account.')
param namespace string = 'monitoring'

@description('Name of that service account, which is that of the Helm release unless the chart is told otherwise.')
param serviceAccountName string = 'azure-batch-exporter'

// Azure Batch Account Reader.
var readerRoleId = '11076f67-66f6-4be0-8f6b-f0609fd05cc9'

resource account 'Microsoft.Batch/batchAccounts@2024-07-01' existing = {
  name: batchAccountName
}

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = {
  name: identityName
  location: location
}

resource federation 'Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials@2023-01-31' = if (!empty(oidcIssuerUrl)) {
  parent: identity
  name: 'kubernetes'
  properties: {
    issuer: oidcIssuerUrl
    subject: 'system:serviceaccount:${namespace}:${serviceAccountName}'
    audiences: ['api://AzureADTokenExchange']
  }
}

resource customRole 'Microsoft.Authorization/roleDefinitions@2022-04-01' = if (leastPrivilege) {
  name: guid(account.id, 'azure-batch-exporter')
  properties: {
    roleName: 'Azure Batch Exporter (${batchAccountName})'
    description: 'Read pools, jobs and tasks of Batch accounts.'
    type: 'CustomRole'
    assignableScopes: [resourceGroup().id]
    permissions: [
      {
        actions: [
          'Microsoft.Batch/batchAccounts/read'
          'Microsoft.Batch/batchAccounts/pools/read'
        ]
        notActions: []
        dataActions: [
          'Microsoft.Batch/batchAccounts/jobs/read'
        ]
        notDataActions: []
      }
    ]
  }
}

resource readerRole 'Microsoft.Authorization/roleDefinitions@2022-04-01' existing = {
  scope: subscription()
  name: readerRoleId
}

resource assignment 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: account
  name: guid(account.id, identity.id, leastPrivilege ? 'custom' : readerRoleId)
  properties: {
    roleDefinitionId: leastPrivilege ? customRole.id : readerRole.id
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
  }
}

@description('For workloadIdentity.clientId of the chart, or client_id in the configuration.')
output clientId string = identity.properties.clientId

@description('For identityId of container-app.bicep, or the identity of a virtual machine.')
output identityId string = identity.id

@description('For endpoint in the configuration.')
output endpoint string = 'https://${account.properties.accountEndpoint}'
